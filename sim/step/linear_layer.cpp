#include "sim/step/linear_layer.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "models/core/count.h"
#include "sim/step/collective_cost.h"
#include "sim/step/usual_efficiency.h"

namespace moecast {
namespace {

/// Least share of a table's linear layer that is left when what its inputs took is taken out: all were timed alone, and
/// their launches may overlap.
constexpr double kLeastOfGemm = 0.3;
/// Of whose linear layers every machine's tables have scales and quantisation too.
constexpr const char* kWithInputs = "vllm";
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

bool takes_inputs_out(const LinearLayerEngine& engine, const ReadyKernelData& gemm) {
  return engine.fp8_inputs != Fp8Inputs::as_measured && gemm.model.key.dtype == "fp8";
}

/// What is left of an fp8 linear layer's time without what its inputs took in the tables and not in the engine; empty:
/// all of it.
std::function<double(double rows, double seconds)> without_inputs(const KernelCalibration& calibration,
                                                                  const LinearLayerEngine& engine,
                                                                  const ReadyKernelData& gemm, std::int64_t k) {
  if (!takes_inputs_out(engine, gemm)) return nullptr;
  struct Part {
    ReadyKernel kernel;
    KernelRowValues row;
    std::size_t m;
  };
  std::vector<Part> parts;
  const auto add = [&](std::string_view table) {
    const KernelLayout& layout = *find_kernel_layout(table);
    KernelRowValues row(layout);
    row.set("m", 1).set("k", value(k));
    const KernelKey& key = gemm.model.key;
    ReadyKernel kernel =
        find_ready_kernel(calibration, {table, "", "", key.framework, key.version, {"fp8"}, true}, row);
    if (kernel && kernel->model.key.framework == key.framework) {
      parts.push_back({std::move(kernel), row, layout.column("m")});
    }
  };
  add("computescale");
  if (engine.fp8_inputs == Fp8Inputs::quantised_before) add("scale_matrix");
  if (parts.empty()) return nullptr;
  return [parts = std::move(parts)](double rows, double seconds) {
    double left = seconds;
    for (const Part& part : parts) {
      KernelRowValues asked = part.row;
      asked.set(part.m, std::max(1.0, rows));
      left -= part.kernel->seconds(asked);
    }
    return std::max(left, kLeastOfGemm * seconds);
  };
}

std::string_view described(Fp8Inputs inputs) {
  return inputs == Fp8Inputs::quantised_before ? " less scales and quantisation of its inputs"
                                               : " less its computation of scales";
}

}  // namespace

LinearLayer find_linear_layer(const KernelCalibration& calibration, const LinearLayerEngine& engine, std::int64_t n,
                              std::int64_t k, DType wanted) {
  const auto find = [&](std::vector<std::string> formats, const KernelRowValues& row) -> ReadyKernel {
    return find_ready_kernel(calibration, {"gemm", "", "", engine.framework, engine.version, std::move(formats), true},
                             row);
  };
  bool in_bf16 = false;
  std::string stands;
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
  auto rest = without_inputs(calibration, engine, *kernel, k);
  if (!rest && takes_inputs_out(engine, *kernel)) {
    // What its inputs took was not measured here: the product is that of a framework of which it was.
    if (ReadyKernel bare = find_ready_kernel(calibration, {"gemm", "", "", kWithInputs, "", {"fp8"}, true}, row);
        bare && bare->model.key.framework == kWithInputs) {
      if (auto left = without_inputs(calibration, engine, *bare, k)) {
        stands = " (stands for " + engine.framework + ", whose inputs were not measured apart)";
        kernel = std::move(bare);
        rest = std::move(left);
      }
    }
  }
  const std::string named = kernel->described() + std::string(rest ? described(engine.fp8_inputs) : "") + stands;
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
