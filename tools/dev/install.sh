# shellcheck shell=bash
# Sourced by tools/quickstart, tools/test and tools/dev/check: installs Debian packages that are missing, saying which.

build_packages=(g++ cmake ninja-build ccache python3 libeigen3-dev libfmt-dev nlohmann-json3-dev libcli11-dev zlib1g-dev
                libbenchmark-dev libdnnl-dev libopenblas-openmp-dev libsimgrid-dev libopenmpi-dev openmpi-bin iproute2 procps)
test_packages=(libgtest-dev libgmock-dev librapidcheck-dev python3-pytest python3-jsonschema clang-19 libclang-rt-19-dev
               git clang-format-19 shellcheck pyflakes3 pycodestyle codespell python3-dev python3-venv python3-torch)
check_packages=(clang-tidy-19 libomp-19-dev)
# Debian's own interpreter: the one that sees the Debian packages, whatever else is first in PATH.
# shellcheck disable=SC2034
python=/usr/bin/python3

# The Python package and what its tests run against, in a virtual environment of its own: build/venv.
venv=build/venv

# install_python_package: builds the wheel with the build cache and installs it.
install_python_package() {
  if [[ ! -x $venv/bin/pip ]]; then
    "$python" -m venv --system-site-packages "$venv"
  fi
  # Debian's torch was built for NumPy 1, which newer pyarrow refuses.
  "$venv/bin/pip" install -q --disable-pip-version-check 'numpy<2' scikit-build-core nanobind 'pymoo>=0.6.2' 'pyarrow<19' optuna \
    deap 'distributed>=2023.5' hypothesis
  # The compiler by the name that the other builds use: their cache serves this one.
  CXX=c++ "$venv/bin/pip" install -q --disable-pip-version-check --no-build-isolation --no-deps .
}

# install_packages [build|test|check]
install_packages() {
  local wanted=("${build_packages[@]}")
  [[ "${1:-build}" == build ]] || wanted+=("${test_packages[@]}")
  [[ "${1:-build}" != check ]] || wanted+=("${check_packages[@]}")
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
