#include "sim/step/linear_layer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "models/core/count.h"
#include "sim/step/collective_cost.h"
#include "sim/step/usual_efficiency.h"

namespace moecast {
namespace {

/// Least share of a table's linear layer that is left when the computation of its scales is taken out: both were timed
/// alone, and a launch of each may overlap.
constexpr double kLeastOfGemm = 0.3;
/// Rows from which on per-tensor kernels stand for others: on Blackwell a single row takes 14 us longer in them than
/// two do, whatever the shape, which is no work of the device.
constexpr double kLeastStandInRows = 2;
/// Narrowest linear layer of the tables.
constexpr std::int64_t kNarrowestPart = 32;

/// On a machine of which no linear layer is known.
LinearLayer physics_layer(const KernelCalibration& calibration, std::int64_t n, std::int64_t k, DType wanted) {
  const auto seconds = [weights = bytes_per_weight(wanted) * value(n) * value(k), wide = value(n), deep = value(k),
                        device = calibration.device](double rows) {
    return kUnknownKernel.seconds({weights + kActivationBytes * rows * (wide + deep), 2 * rows * wide * deep}, device);
  };
  return {"physics", seconds, nullptr, KernelRowValues(*find_kernel_layout("gemm"))};
}

/// What is left of an fp8 linear layer's time where the engine does not compute scales; empty: all of it.
std::function<double(double rows, double seconds)> without_scales(const KernelCalibration& calibration,
                                                                  const LinearLayerEngine& engine,
                                                                  const ReadyKernelData& gemm, std::int64_t k) {
  if (!engine.constant_scales || gemm.model.key.dtype != "fp8") return nullptr;
  const KernelLayout& layout = *find_kernel_layout("computescale");
  KernelRowValues row(layout);
  row.set("m", 1).set("k", value(k));
  const KernelKey& key = gemm.model.key;
  const ReadyKernel scale =
      find_ready_kernel(calibration, {"computescale", "", "", key.framework, key.version, {"fp8"}, true}, row);
  if (!scale || scale->model.key.framework != key.framework) return nullptr;
  return [scale, row, m = layout.column("m")](double rows, double seconds) {
    KernelRowValues asked = row;
    asked.set(m, std::max(1.0, rows));
    return std::max(seconds - scale->seconds(asked), kLeastOfGemm * seconds);
  };
}

}  // namespace

LinearLayer find_linear_layer(const KernelCalibration& calibration, const LinearLayerEngine& engine, std::int64_t n,
                              std::int64_t k, DType wanted) {
  const auto find = [&](std::vector<std::string> formats, const KernelRowValues& row) -> ReadyKernel {
    return find_ready_kernel(calibration, {"gemm", "", "", engine.framework, engine.version, std::move(formats), true},
                             row);
  };
  bool in_bf16 = false;
  const KernelLayout& layout = *find_kernel_layout("gemm");
  KernelRowValues row(layout);
  row.set("m", 1).set("n", value(std::max(n, kNarrowestPart))).set("k", value(k));
  ReadyKernel kernel = find(table_formats(wanted), row);
  // vLLM's fp8_block rows are bound by the host below a thousand rows; a replayed graph is not: per-tensor kernels
  // of the same shape say what the device takes.
  ReadyKernel other;
  const bool host_bound = wanted == DType::fp8_block && (!kernel || kernel->model.key.framework == "vllm");
  if (host_bound) other = find({"fp8"}, row);
  if (!kernel) std::swap(kernel, other);
  if (!kernel) {
    kernel = find({"bfloat16"}, row);
    if (!kernel) return physics_layer(calibration, n, k, wanted);
    in_bf16 = true;
  }
  const std::size_t m = layout.column("m");
  auto rest = without_scales(calibration, engine, *kernel, k);
  const std::string named = kernel->described() + (rest ? " less its computation of scales" : "");
  return {named,
          [kernel, other, row, m, rest = std::move(rest)](double rows) {
            KernelRowValues asked = row;
            asked.set(m, std::max(1.0, rows));
            const double seconds = kernel->seconds(asked);
            if (rest) return rest(rows, seconds);
            if (!other) return seconds;
            asked.set(m, std::max(kLeastStandInRows, rows));
            return std::min(seconds, other->seconds(asked));
          },
          kernel, row, in_bf16};
}

}  // namespace moecast
