#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "models/core/error.h"
#include "profiler/cpu/gemm.h"
#include "profiler/cuda/presence.h"
#include "tools/cli/machine_checks.h"

namespace moecast {
namespace {

/// Kernel families that a backend chooses for a small and a large GEMM.
Check backend_check(const std::string& backend) {
  std::vector<std::string> parts;
  for (const DType dtype : {DType::fp32, DType::bf16}) {
    if (!gemm_supports(backend, dtype)) continue;
    const auto gemm = make_gemm(backend, dtype, 256, 256, 1);
    parts.push_back(fmt::format("{}: {}", to_string(dtype), gemm->implementation(64)));
  }
  const auto core = backend == "openblas" ? openblas_core_override() : std::nullopt;
  return {"backend " + backend, core ? CheckStatus::warning : CheckStatus::ok,
          fmt::format("{}; {}", gemm_library(backend), fmt::join(parts, "; ")),
          core ? fmt::format("export OPENBLAS_CORETYPE={} (profile and validate do so by themselves)", *core) : ""};
}

/// Says what `profile --device cuda` would say.
Check gpu_check(const GpuPresence& gpu) {
  if (const auto obstacle = gpu_obstacle(gpu, 0)) {
    return {"gpu", CheckStatus::missing, obstacle->problem,
            obstacle->advice + " (only profile --device cuda needs it)"};
  }
  return {"gpu", CheckStatus::ok,
          fmt::format("{}; CUDA {}, the driver runs {}", fmt::join(gpu.devices, ", "), cuda_version_text(gpu.runtime),
                      cuda_version_text(gpu.driver)),
          ""};
}

}  // namespace

std::vector<Check> optional_checks() {
  return {gpu_check(look_for_gpu()),
          {"mpi", CheckStatus::missing, "not used by this build", "nothing needs it: one machine is measured"}};
}

std::vector<Check> backend_checks() {
  std::vector<Check> checks;
  const std::vector<std::string> built = gemm_backends();
  for (const std::string& backend : built) checks.push_back(backend_check(backend));
  for (const auto& [name, package] :
       {std::pair{"onednn", "libdnnl-dev"}, std::pair{"openblas", "libopenblas-openmp-dev"}}) {
    if (std::find(built.begin(), built.end(), name) != built.end()) continue;
    checks.push_back({std::string("backend ") + name, CheckStatus::missing, "not in this build",
                      fmt::format("apt-get install {} and build again", package)});
  }
  return checks;
}

}  // namespace moecast
