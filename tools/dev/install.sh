# Sourced by tools/quickstart, tools/test and tools/dev/check: installs Debian packages that are missing, saying which.

build_packages=(g++ cmake ninja-build ccache python3 libeigen3-dev libfmt-dev nlohmann-json3-dev libcli11-dev zlib1g-dev
                libbenchmark-dev libdnnl-dev libopenblas-pthread-dev libopenblas-dev)
test_packages=(libgtest-dev libgmock-dev librapidcheck-dev)

# install_packages [build|test]
install_packages() {
  local wanted=("${build_packages[@]}")
  [[ "${1:-build}" == test ]] && wanted+=("${test_packages[@]}")
  local missing=()
  for package in "${wanted[@]}"; do
    [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -eq 0 ]] && return 0
  echo "installing ${#missing[@]} Debian packages: ${missing[*]}" >&2
  local root=()
  [[ $EUID -eq 0 ]] || root=(sudo)
  "${root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
