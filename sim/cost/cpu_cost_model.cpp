#include <algorithm>
#include <cmath>
#include <utility>

#include "models/core/error.h"
#include "sim/cost/calibration.h"

namespace moecast {
namespace {

/// A point whose correlation with every measured one is below this is outside what was measured.
constexpr double kNear = 0.2;
/// Half width of a 90 % interval in standard deviations of a normal.
constexpr double kNinety = 1.645;
/// The measured attention is causal over one cache. Others do the same work for each visible key, in another order: the
/// law answers them with twice its half width.
constexpr double kOtherMask = 2;

class CpuCostModel final : public CostModel {
 public:
  explicit CpuCostModel(std::shared_ptr<const Calibration> calibration) : calibration_(std::move(calibration)) {}

  [[nodiscard]] KernelCost cost(const KernelPoint& point, double rows) const override {
    if (is_gemm(point.kind)) return gemm_cost(gemm(point), point, rows);
    return stage_cost(stage(point), point, rows);
  }

  [[nodiscard]] double uncertainty(const KernelPoint& point) const override {
    if (!is_gemm(point.kind)) return stage(point).half_width / kNinety;
    const GemmCalibration& calibration = gemm(point);
    return calibration.residual.deviation(calibration.law.features(gemm_call(point)));
  }

  [[nodiscard]] bool knows(OperatorKind kind, const std::string& backend, DType dtype, int threads) const override {
    if (is_gemm(kind)) return calibration_->find_gemm(backend, dtype, threads) != nullptr;
    return calibration_->find_stage(kind, dtype, threads, true) != nullptr;
  }

 private:
  static bool is_gemm(OperatorKind kind) {
    return kind == OperatorKind::gemm || kind == OperatorKind::grouped_gemm || kind == OperatorKind::call;
  }

  [[noreturn]] static void unknown(const KernelPoint& point) {
    throw InputError("",
                     "the profile holds no " + std::string(to_string(point.kind)) + " of " + point.backend + " in " +
                         std::string(to_string(point.dtype)) + " on " + std::to_string(point.threads) + " threads",
                     "profile it: moecast profile --backend ... --dtype ... --threads ...");
  }

  [[nodiscard]] const GemmCalibration& gemm(const KernelPoint& point) const {
    const auto* found = calibration_->find_gemm(point.backend, point.dtype, point.threads);
    if (found == nullptr) unknown(point);
    return *found;
  }

  [[nodiscard]] const StageCalibration& stage(const KernelPoint& point) const {
    const auto* found = calibration_->find_stage(point.kind, point.dtype, point.threads, point.shape.gated != 0);
    if (found == nullptr) unknown(point);
    return *found;
  }

  static KernelCost gemm_cost(const GemmCalibration& calibration, const KernelPoint& point, double rows) {
    GemmCall call = gemm_call(point);
    if (point.kind == OperatorKind::call) call = {1, 16, 16, 0, 0};
    if (rows > 0) call.m = rows;
    const auto residual = calibration.residual.evaluate(calibration.law.features(call));
    const double physics = std::exp(calibration.law.log_seconds(call));
    KernelCost cost;
    cost.latency = Seconds(physics * std::exp(residual.mean));
    double half = calibration.half_width[static_cast<std::size_t>(band_of(call.m))];
    cost.origin = Origin::interpolated;
    if (residual.nearness < kNear) {
      cost.origin = Origin::extrapolated;
      half = std::hypot(half, kNinety * std::sqrt(calibration.residual.variance()));
    }
    cost.low = cost.latency * std::exp(-half);
    cost.high = cost.latency * std::exp(half);
    const double memory = calibration.law.memory_seconds(call);
    const double compute = calibration.law.compute_seconds(call);
    // Where both overlap their sum exceeds the latency: the shares keep their proportion.
    const double whole = std::max(physics, memory + compute);
    cost.memory_ratio = memory / whole;
    cost.compute_ratio = compute / whole;
    return cost;
  }

  static KernelCost stage_cost(const StageCalibration& calibration, KernelPoint point, double rows) {
    if (rows > 0) point.shape.m = std::max<std::int64_t>(1, std::llround(rows));
    const double scale = rows > 0 ? rows / static_cast<double>(point.shape.m) : 1;
    KernelCost cost;
    cost.latency = calibration.law.seconds(point) * scale;
    cost.origin = Origin::fitted;
    double half = calibration.half_width;
    if (point.shape.visible > 0) {
      cost.origin = Origin::extrapolated;
      half *= kOtherMask;
    }
    cost.low = cost.latency * std::exp(-half);
    cost.high = cost.latency * std::exp(half);
    const double seconds = cost.latency.value();
    if (seconds > 0) cost.memory_ratio = calibration.law.memory_seconds(point).value() * scale / seconds;
    if (stage_flops(point).value() > 0) cost.compute_ratio = 1 - cost.memory_ratio;
    return cost;
  }

  std::shared_ptr<const Calibration> calibration_;
};

}  // namespace

std::shared_ptr<const CostModel> make_cost_model(std::shared_ptr<const Calibration> calibration) {
  return std::make_shared<CpuCostModel>(std::move(calibration));
}

}  // namespace moecast
