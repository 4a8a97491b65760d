#include "sim/cost/kernel/ready_kernel.h"

#include <algorithm>
#include <tuple>

namespace moecast {
namespace {

/// Unit of the scores of a configuration next to measured ones.
constexpr double kNear = 0.8;

/// 0: measured itself, 1: next to what was measured, 2: far.
double distance_class(const CompiledKernel& compiled) {
  return compiled.measured() ? 0 : compiled.sigma() <= kNear ? 1 : 2;
}

/// "0.24.0" above "0.9.2".
double version_number(const std::string& version) {
  double number = 0;
  double digit = 0;
  double scale = 1e12;
  for (const char c : version + ".") {
    if (c >= '0' && c <= '9') {
      digit = 10 * digit + (c - '0');
      continue;
    }
    number += digit * scale;
    scale /= 1e3;
    digit = 0;
  }
  return number;
}

}  // namespace

std::vector<std::string> table_formats(DType dtype) {
  switch (dtype) {
    case DType::bf16:
    case DType::fp16: return {"bfloat16", "float16"};
    case DType::fp8: return {"fp8", "fp8_block"};
    case DType::int4: return {"int4_wo"};
    case DType::mxfp4: return {"w4a8_mxfp4_mxfp8", "w4a16_mxfp4"};
    default: return {std::string(to_string(dtype))};
  }
}

CompiledKernel::Answer ReadyKernelData::at(const KernelRowValues& row, std::optional<RankLoad> load) const {
  thread_local RankLoadCache loads;
  return compiled.at({row.span(), load}, loads);
}

std::shared_ptr<ReadyKernelData> find_ready_kernel(const KernelCalibration& calibration, const KernelWanted& wanted,
                                                   const KernelRowValues& row) {
  std::shared_ptr<ReadyKernelData> best;
  std::array<double, 6> best_rank{};
  CompiledKernel::Workspace workspace;
  for (const KernelModel& known : calibration.kernels) {
    if (known.key.layout != wanted.layout || !known.key.kernel.ends_with(wanted.part)) continue;
    if (!wanted.only.empty() && known.key.kernel != wanted.only) continue;
    const auto format = std::ranges::find(wanted.formats, known.key.dtype);
    if (!wanted.formats.empty() && format == wanted.formats.end()) continue;
    const auto at_format = static_cast<double>(format - wanted.formats.begin());
    const std::array<double, 3> first{known.key.framework == wanted.framework ? 0.0 : 1.0,
                                      wanted.version.empty() || known.key.version == wanted.version ? 0.0 : 1.0,
                                      at_format};
    if (best && std::tie(best_rank[0], best_rank[1], best_rank[2]) < std::tie(first[0], first[1], first[2])) continue;
    auto ready = std::make_shared<ReadyKernelData>();
    ready->model = known;
    ready->compiled = CompiledKernel(known, row.span(), workspace);
    const double sigma = ready->compiled.sigma();
    const std::array<double, 6> rank{first[0],
                                     first[1],
                                     first[2],
                                     wanted.usual ? distance_class(ready->compiled) : sigma,
                                     wanted.usual ? -static_cast<double>(known.rows) : 0.0,
                                     -version_number(known.key.version)};
    if (best && !(rank < best_rank)) continue;
    best_rank = rank;
    if (known.key.framework != wanted.framework && !wanted.framework.empty()) {
      ready->substitution = "stands for " + std::string(wanted.framework);
    }
    best = std::move(ready);
  }
  return best;
}

std::vector<ReadyKernel> find_ready_kernels(const KernelCalibration& calibration, const KernelWanted& wanted,
                                            const KernelRowValues& row) {
  std::vector<ReadyKernel> found;
  const std::shared_ptr<ReadyKernelData> best = find_ready_kernel(calibration, wanted, row);
  if (!best) return found;
  found.push_back(best);
  CompiledKernel::Workspace workspace;
  for (const KernelModel& known : calibration.kernels) {
    const KernelKey& key = best->model.key;
    if (known.key.layout != key.layout || known.key.framework != key.framework || known.key.version != key.version ||
        known.key.dtype != key.dtype || known.key.kernel == key.kernel || !known.key.kernel.ends_with(wanted.part)) {
      continue;
    }
    auto ready = std::make_shared<ReadyKernelData>();
    ready->model = known;
    ready->compiled = CompiledKernel(known, row.span(), workspace);
    ready->substitution = best->substitution;
    if (distance_class(ready->compiled) <= distance_class(best->compiled)) found.push_back(std::move(ready));
  }
  return found;
}

}  // namespace moecast
