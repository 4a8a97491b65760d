#include "sim/cost/kernel/few_samples.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <array>
#include <cmath>

#include "models/core/statistics.h"
#include "sim/cost/kernel/curve_kriging.h"

namespace moecast {
namespace {

constexpr std::size_t kShort = 8;
constexpr double kLength = 3;  ///< in log2 of the position
constexpr double kAlong = 0.5;
constexpr double kNoise = 0.03;
/// Share of the law's prior widths that a sister's coefficients may differ by.
constexpr double kSisterWidth = 0.5;
constexpr int kFolds = 5;
constexpr double kSampleCoverage = 0.9;

double covariance(double a, double b) {
  const double s = std::sqrt(3.0) * std::abs(a - b) / kLength;
  return 1 + kAlong * (1 + s) * std::exp(-s);
}

/// Share of the interval that is left when a configuration was measured at this many positions.
double interval_share(std::size_t points) {
  return points >= 5 ? 0.65 : points >= 3 ? 0.75 : points == 2 ? 0.85 : 0.95;
}

/// Errors of left-out fifths of the rows when `carried` of the sister's residual is added to the physics.
Eigen::VectorXd left_out_errors(const KernelData& data, const KernelLaw& law, const Eigen::VectorXd& sister,
                                double carried, const MeanFitOptions& options) {
  KernelData shifted = data;
  shifted.log_seconds -= carried * sister;
  Eigen::VectorXd errors(data.log_seconds.size());
  for (int fold = 0; fold < kFolds; ++fold) {
    std::vector<bool> use(data.rows());
    for (std::size_t row = 0; row < use.size(); ++row) use[row] = static_cast<int>(row % kFolds) != fold;
    const Eigen::VectorXd means = log_means(shifted, law, fit_mean(shifted, law, use, options.prior, options));
    for (std::size_t row = 0; row < use.size(); ++row) {
      const auto r = static_cast<Eigen::Index>(row);
      if (!use[row]) errors(r) = shifted.log_seconds(r) - means(r);
    }
  }
  return errors;
}

double median_absolute(const Eigen::VectorXd& errors) {
  const Eigen::VectorXd sizes = errors.cwiseAbs();
  return median({sizes.begin(), sizes.end()});
}

}  // namespace

std::vector<bool> short_curves(const KernelData& data) {
  std::vector<double> lengths;
  for (const auto& curve : data.curves) lengths.push_back(static_cast<double>(curve.size()));
  const double usual = median(lengths);
  std::vector<bool> is_short;
  for (const double length : lengths) is_short.push_back(length < kShort && length < usual / 2);
  return is_short;
}

Eigen::VectorXd model_residuals(const KernelData& data, const KernelModel& model) {
  const KernelArrays& arrays = model.arrays();
  Eigen::VectorXd residuals = Eigen::VectorXd::Zero(data.log_seconds.size());
  if (arrays.weights.rows() == 0) return residuals;
  std::array<double, KernelLaw::kMostCoefficients> prepared{};
  model.law->prepare(model.coefficients.data(), prepared.data());
  const Eigen::MatrixXd cross = curve_covariance(model.law->kernel(), data.features, arrays.features.cast<double>());
  const Eigen::MatrixXd nodes = cross * arrays.weights.cast<double>();
  for (std::size_t curve = 0; curve < data.curves.size(); ++curve) {
    Eigen::Index same = 0;
    const auto c = static_cast<Eigen::Index>(curve);
    const bool own = cross.row(c).maxCoeff(&same) > model.law->kernel().variance() * (1 - 1e-9);
    for (const std::size_t row : data.curves[curve]) {
      const auto r = static_cast<Eigen::Index>(row);
      if (model.law->host_bound(data.terms.row(r).data(), prepared.data())) continue;
      std::array<double, CurveGrid::kMostAxes> at{};
      for (Eigen::Index axis = 0; axis < data.coordinates.cols(); ++axis) {
        at[static_cast<std::size_t>(axis)] = data.coordinates(r, axis);
      }
      const CurveGrid::Place place = own ? model.grid.own_place(at.data()) : model.grid.place(at.data());
      for (std::size_t i = 0; i < static_cast<std::size_t>(place.count); ++i) {
        double value = nodes(c, place.node[i]);
        if (own) value += static_cast<double>(arrays.own(same, place.node[i]));
        residuals(r) += place.share[i] * value;
      }
    }
  }
  return residuals;
}

void add_short_curves(const KernelData& data, const std::vector<bool>& is_short, KernelModel& model) {
  std::vector<std::size_t> added;
  for (std::size_t curve = 0; curve < is_short.size(); ++curve) {
    if (is_short[curve]) added.push_back(curve);
  }
  if (added.empty()) return;
  KernelArrays arrays = model.arrays();
  const Eigen::Index before = arrays.features.rows();
  const Eigen::Index after = before + std::ssize(added);
  const Eigen::VectorXd residuals = model_residuals(data, model);
  const Eigen::VectorXd means = log_means(data, *model.law, model.coefficients);
  arrays.features.conservativeResize(after, Eigen::NoChange);
  arrays.own.conservativeResize(after, Eigen::NoChange);
  arrays.gaps.conservativeResize(after, Eigen::NoChange);
  arrays.gaps.bottomRows(after - before).setZero();  // the share of a short curve says how sure it is
  if (arrays.weights.rows() > 0) {
    arrays.weights.conservativeResize(after, Eigen::NoChange);
    arrays.weights.bottomRows(after - before).setZero();
  }
  const Eigen::Index nodes = arrays.own.cols();
  for (std::size_t i = 0; i < added.size(); ++i) {
    const auto& points = data.curves[added[i]];
    const auto size = static_cast<Eigen::Index>(points.size());
    Eigen::MatrixXd between(size, size);
    Eigen::VectorXd error(size);
    for (Eigen::Index a = 0; a < size; ++a) {
      const auto row = static_cast<Eigen::Index>(points[static_cast<std::size_t>(a)]);
      error(a) = data.log_seconds(row) - means(row) - residuals(row);
      for (Eigen::Index b = 0; b < size; ++b) {
        between(a, b) = covariance(data.coordinates(row, 0),
                                   data.coordinates(static_cast<Eigen::Index>(points[static_cast<std::size_t>(b)]), 0));
      }
      between(a, a) += kNoise;
    }
    const Eigen::VectorXd weights = between.llt().solve(error);
    const Eigen::Index out = before + static_cast<Eigen::Index>(i);
    arrays.features.row(out) = data.features.row(static_cast<Eigen::Index>(added[i])).cast<float>();
    // Nodes of a plane run along its second axis fastest.
    const auto columns = model.grid.plane ? std::ssize(model.grid.axes[1]) : std::ptrdiff_t{1};
    for (Eigen::Index node = 0; node < nodes; ++node) {
      const double at = model.grid.axes[0][static_cast<std::size_t>(node / columns)];
      double correction = 0;
      for (Eigen::Index a = 0; a < size; ++a) {
        const auto row = static_cast<Eigen::Index>(points[static_cast<std::size_t>(a)]);
        correction += weights(a) * covariance(at, data.coordinates(row, 0));
      }
      arrays.own(out, node) = static_cast<float>(correction);
    }
    model.short_curve_shares.push_back(interval_share(points.size()));
  }
  model.lazy = std::make_shared<const LazyArrays>(std::move(arrays));
}

SisterFit fit_with_sister(const KernelSamples& samples, const std::shared_ptr<const KernelLaw>& law,
                          const KernelModel& sister, RankLoadCache& loads) {
  const KernelData data = make_kernel_data(samples, *law, loads);
  const Eigen::VectorXd residuals = model_residuals(data, sister);
  SisterFit fit;
  // The same code on another chip: its coefficients are a better start than those of any kernel.
  MeanFitOptions options;
  options.prior = sister.coefficients;
  options.prior_width = kSisterWidth;
  Eigen::VectorXd errors = left_out_errors(data, *law, residuals, 0, options);
  fit.error_without = fit.error_with = median_absolute(errors);
  for (const double carried : {0.5, 0.9}) {
    const Eigen::VectorXd tried = left_out_errors(data, *law, residuals, carried, options);
    const double error = median_absolute(tried);
    if (error >= fit.error_with) continue;
    fit.error_with = error;
    fit.carried_ratio = carried;
    errors = tried;
  }
  KernelData shifted = data;
  shifted.log_seconds -= fit.carried_ratio * residuals;
  KernelModel& model = fit.model;
  model = sister;
  model.key = samples.key;
  model.law = law;
  model.rows = static_cast<int>(samples.size());
  model.left_out.reset();
  model.coefficients = fit_mean(shifted, *law, std::vector<bool>(data.rows(), true), options.prior, options);
  KernelArrays arrays = sister.arrays();
  arrays.weights *= static_cast<float>(fit.carried_ratio);
  arrays.own *= static_cast<float>(fit.carried_ratio);
  model.lazy = std::make_shared<const LazyArrays>(std::move(arrays));
  // Scores of the samples, which are few: the sister's scores where they are wider.
  const double variance = std::sqrt(law->kernel().variance() * 0.1 + kVarianceFloor);
  const std::vector<double> signed_errors(errors.begin(), errors.end());
  const double low = quantile(signed_errors, (1 - kSampleCoverage) / 2) / variance;
  const double high = quantile(signed_errors, 1 - (1 - kSampleCoverage) / 2) / variance;
  for (double& score : model.scores.low) score = std::min({score, low, -1e-3});
  for (double& score : model.scores.high) score = std::max({score, high, 1e-3});
  // Where the sister is surer than on the whole says nothing of how sure the samples are: only what widens is kept.
  for (auto& levels : model.scores.stretch) {
    for (double& ratio : levels) ratio = std::max(ratio, 1.0);
  }
  model.inherited = true;
  return fit;
}

}  // namespace moecast
