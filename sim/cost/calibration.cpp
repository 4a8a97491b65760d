#include "sim/cost/calibration.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::size_t kLeastPoints = 8;
constexpr double kCoverage = 0.9;
/// |ln| error of the next shape where only one is known: about a factor of two.
constexpr double kUnknownShape = 0.69;
constexpr std::size_t kShapeFolds = 10;  ///< of shapes, left out in turn
/// A band with fewer left-out points than this borrows those of all bands.
constexpr std::size_t kLeastBandPoints = 12;

double conformal_quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  // The conformal rank: the smallest value that at least (n + 1) * share of n + 1 exchangeable values do not exceed.
  const double rank = std::ceil(share * (static_cast<double>(values.size()) + 1)) - 1;
  return values[static_cast<std::size_t>(std::clamp(rank, 0.0, static_cast<double>(values.size() - 1)))];
}

GemmTraits traits_of(const Profile& profile, const std::string& backend, DType dtype, int threads) {
  for (const ProfileBackend& known : profile.backends) {
    if (known.name == backend && known.dtype == dtype) {
      return gemm_traits(backend, dtype, threads, known.row_bucket, known.packing);
    }
  }
  return gemm_traits(backend, dtype, threads, RowBucket::exact, WeightPacking::ahead);
}

struct FittedGemm {
  GemmLaw law;
  Kriging residual;
  /// ln of measured over predicted.
  [[nodiscard]] double error(const GemmCall& call, double seconds) const {
    return std::log(seconds) - law.log_seconds(call) - residual.mean(law.features(call));
  }
};

FittedGemm fit_gemm_law(const GemmTraits& traits, const std::vector<GemmCall>& calls, const Eigen::VectorXd& seconds) {
  FittedGemm fit{GemmLaw::fit(traits, calls, seconds), {}};
  Eigen::MatrixXd features(seconds.size(), GemmLaw::kFeatures);
  Eigen::VectorXd residuals(seconds.size());
  for (Eigen::Index i = 0; i < seconds.size(); ++i) {
    const GemmCall& call = calls[static_cast<std::size_t>(i)];
    features.row(i) = fit.law.features(call).transpose();
    residuals(i) = std::log(seconds(i)) - fit.law.log_seconds(call);
  }
  Kriging::Options options;
  options.prior_lengths = Eigen::VectorXd(GemmLaw::kFeatures);
  options.prior_lengths << 2, 2, 2, 3, 2, 2, 2;
  fit.residual = Kriging(features, residuals, options);
  return fit;
}

/// |ln| errors of calls whose whole shape (columns, depth) neither law nor residual has seen; nullopt where too few
/// other calls are left to fit to.
std::vector<std::optional<double>> left_out_shape_errors(const GemmTraits& traits, const std::vector<GemmCall>& calls,
                                                         const Eigen::VectorXd& seconds) {
  std::map<std::pair<double, double>, std::size_t> shapes;
  std::vector<std::size_t> fold_of;
  for (const GemmCall& call : calls) {
    fold_of.push_back(shapes.try_emplace({call.n, call.k}, shapes.size()).first->second % kShapeFolds);
  }
  std::vector<std::optional<double>> errors(calls.size());
  for (std::size_t fold = 0; fold < kShapeFolds; ++fold) {
    std::vector<GemmCall> kept;
    std::vector<double> kept_s;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (fold_of[i] == fold) continue;
      kept.push_back(calls[i]);
      kept_s.push_back(seconds(static_cast<Eigen::Index>(i)));
    }
    if (kept.size() < kLeastPoints || kept.size() == calls.size()) continue;
    const FittedGemm fit =
        fit_gemm_law(traits, kept, Eigen::Map<const Eigen::VectorXd>(kept_s.data(), std::ssize(kept_s)));
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (fold_of[i] == fold) errors[i] = std::abs(fit.error(calls[i], seconds(static_cast<Eigen::Index>(i))));
    }
  }
  return errors;
}

GemmCalibration fit_gemms(const Profile& profile, const std::vector<Measurement>& points) {
  const KernelPoint& first = points.front().point;
  GemmCalibration fitted;
  fitted.backend = first.backend;
  fitted.dtype = first.dtype;
  fitted.threads = first.threads;
  fitted.points = static_cast<int>(points.size());
  std::vector<GemmCall> calls;
  Eigen::VectorXd seconds(std::ssize(points));
  for (std::size_t i = 0; i < points.size(); ++i) {
    calls.push_back(gemm_call(points[i].point));
    seconds(static_cast<Eigen::Index>(i)) = points[i].latency.value();
  }
  const GemmTraits traits = traits_of(profile, first.backend, first.dtype, first.threads);
  FittedGemm fit = fit_gemm_law(traits, calls, seconds);
  fitted.law = std::move(fit.law);
  fitted.residual = std::move(fit.residual);

  const std::vector<std::optional<double>> left_out = left_out_shape_errors(traits, calls, seconds);
  std::vector<double> all;
  std::array<std::vector<double>, kBands> errors;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (!left_out[i]) continue;
    errors[static_cast<std::size_t>(band_of(calls[i].m))].push_back(*left_out[i]);
    all.push_back(*left_out[i]);
  }
  if (all.empty()) all.push_back(kUnknownShape);
  for (std::size_t band = 0; band < kBands; ++band) {
    const auto& own = errors[band].size() >= kLeastBandPoints ? errors[band] : all;
    fitted.half_width[band] = conformal_quantile(own, kCoverage);
    fitted.median_error[band] = std::expm1(conformal_quantile(own, 0.5));
  }
  return fitted;
}

StageCalibration fit_stage(const std::vector<Measurement>& points) {
  StageCalibration fitted;
  fitted.dtype = points.front().point.dtype;
  fitted.threads = points.front().point.threads;
  fitted.gated = points.front().point.shape.gated != 0;
  fitted.points = static_cast<int>(points.size());
  fitted.law = StageLaw::fit(points);
  std::vector<double> errors;
  for (std::size_t left_out = 0; left_out < points.size(); ++left_out) {
    std::vector<Measurement> others = points;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(left_out));
    const Measurement& row = points[left_out];
    const double predicted = StageLaw::fit(others).seconds(row.point).value();
    if (predicted > 0) errors.push_back(std::abs(std::log(predicted / row.latency.value())));
  }
  fitted.half_width = conformal_quantile(errors, kCoverage);
  return fitted;
}

}  // namespace

GemmCall gemm_call(const KernelPoint& point) {
  return {static_cast<double>(point.shape.m), static_cast<double>(point.shape.n),
          static_cast<double>(point.shape.k), point.footprint.value(),
          point.input_footprint.value(),      point.output_footprint.value()};
}

const GemmCalibration* Calibration::find_gemm(const std::string& backend, DType dtype, int threads) const {
  for (const GemmCalibration& gemm : gemms) {
    if (gemm.backend == backend && gemm.dtype == dtype && gemm.threads == threads) return &gemm;
  }
  return nullptr;
}

const StageCalibration* Calibration::find_stage(OperatorKind kind, DType dtype, int threads, bool gated) const {
  const StageCalibration* other = nullptr;
  for (const StageCalibration& stage : stages) {
    if (stage.law.kind() != kind || stage.threads != threads) continue;
    const bool same_gate = kind != OperatorKind::activation || stage.gated == gated;
    if (same_gate && stage.dtype == dtype) return &stage;
    if (same_gate) other = &stage;
  }
  return other;
}

double Closures::factor(const std::string& backend, DType dtype, int threads, KernelStrategy strategy) const {
  for (const Closure& closure : factors) {
    if (closure.backend == backend && closure.dtype == dtype && closure.threads == threads &&
        closure.strategy == strategy) {
      return closure.factor;
    }
  }
  return 1;
}

bool only_checks(OperatorKind kind) {
  return kind == OperatorKind::read || kind == OperatorKind::call || kind == OperatorKind::fused_moe;
}

Calibration calibrate(const Profile& profile, const std::vector<Measurement>& measurements) {
  Calibration calibration;
  calibration.profile = profile.name;
  std::map<std::tuple<std::string, DType, int>, std::vector<Measurement>> gemms;
  std::map<std::tuple<OperatorKind, DType, int, bool>, std::vector<Measurement>> stages;
  for (const Measurement& row : measurements) {
    const KernelPoint& point = row.point;
    if (point.kind == OperatorKind::gemm) {
      gemms[{point.backend, point.dtype, point.threads}].push_back(row);
    } else if (!only_checks(point.kind)) {
      const bool gated = point.kind == OperatorKind::activation && point.shape.gated != 0;
      stages[{point.kind, point.dtype, point.threads, gated}].push_back(row);
    }
  }
  for (const auto& [key, points] : gemms) {
    if (points.size() >= kLeastPoints) calibration.gemms.push_back(fit_gemms(profile, points));
  }
  for (const auto& [key, points] : stages) {
    if (points.size() >= kLeastPoints) calibration.stages.push_back(fit_stage(points));
  }
  if (calibration.gemms.empty()) {
    throw InputError(profile.name, "holds no GEMM samples to calibrate from", "profile the machine: moecast profile");
  }
  return calibration;
}

}  // namespace moecast
