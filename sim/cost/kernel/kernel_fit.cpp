#include "sim/cost/kernel/kernel_fit.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "models/core/statistics.h"

namespace moecast {
namespace {

constexpr int kLandmarks = 96;
/// Landmarks are chosen until none adds more than this to what the others explain.
constexpr double kLeastLandmark = 0.05;
constexpr double kLandmarkNoise = 0.15;
constexpr int kLeastCurves = 5;  ///< below, physics alone
constexpr double kCoverage = 0.9;
/// Score of a kernel of which a single shape was measured: physics alone is off by this, left out, at p90.
constexpr double kUnknownScore = 0.6;
constexpr double kShapeQuantile = 0.6;

Eigen::MatrixXd rows_of(const Eigen::MatrixXd& from, const std::vector<Eigen::Index>& rows) {
  Eigen::MatrixXd picked(static_cast<Eigen::Index>(rows.size()), from.cols());
  for (std::size_t i = 0; i < rows.size(); ++i) picked.row(static_cast<Eigen::Index>(i)) = from.row(rows[i]);
  return picked;
}

/// Pivoted Cholesky: each landmark is the curve that those before it explain least.
Landmarks choose_landmarks(const CurveKernel& kernel, const Eigen::MatrixXd& features) {
  const Eigen::Index n = features.rows();
  if (n == 0) return {};
  Eigen::VectorXd left = Eigen::VectorXd::Constant(n, kernel.variance());
  std::vector<Eigen::Index> chosen;
  Eigen::MatrixXd columns(n, std::min<Eigen::Index>(n, kLandmarks));
  while (static_cast<Eigen::Index>(chosen.size()) < columns.cols()) {
    Eigen::Index pivot = 0;
    const double most = left.maxCoeff(&pivot);
    if (most < kLeastLandmark) break;
    const auto step = static_cast<Eigen::Index>(chosen.size());
    Eigen::VectorXd column = curve_covariance(kernel, features, features.row(pivot));
    column -= columns.leftCols(step) * columns.row(pivot).head(step).transpose();
    column /= std::sqrt(most + kLandmarkNoise);
    columns.col(step) = column;
    left -= column.cwiseAbs2();
    left(pivot) = 0;
    chosen.push_back(pivot);
  }
  const Eigen::MatrixXd picked = rows_of(features, chosen);
  Eigen::MatrixXd covariance = curve_covariance(kernel, picked, picked);
  covariance.diagonal().array() += kLandmarkNoise;
  const Eigen::MatrixXd lower = covariance.llt().matrixL();
  Landmarks landmarks;
  landmarks.features = picked.cast<float>();
  landmarks.factor =
      lower.triangularView<Eigen::Lower>().solve(Eigen::MatrixXd::Identity(lower.rows(), lower.cols())).cast<float>();
  return landmarks;
}

Eigen::MatrixXd residual_curves(const KernelData& data, const std::vector<Eigen::Index>& curves,
                                const Eigen::VectorXd& means) {
  Eigen::MatrixXd values(static_cast<Eigen::Index>(curves.size()), data.grid.nodes());
  for (std::size_t i = 0; i < curves.size(); ++i) {
    values.row(static_cast<Eigen::Index>(i)) =
        data.residual_curve(static_cast<std::size_t>(curves[i]), means).transpose();
  }
  return values;
}

std::vector<bool> rows_in(const KernelData& data, const std::vector<bool>& use_curve) {
  std::vector<bool> use(data.rows(), false);
  for (std::size_t curve = 0; curve < data.curves.size(); ++curve) {
    for (const std::size_t row : data.curves[curve]) use[row] = use_curve[curve];
  }
  return use;
}

int count_groups(const std::vector<int>& groups) {
  return groups.empty() ? 0 : *std::max_element(groups.begin(), groups.end()) + 1;
}

}  // namespace

double nearest_log_seconds(const KernelData& data, std::size_t curve, const Eigen::RowVectorXd& coordinates) {
  const Eigen::Index axes = data.grid.plane ? coordinates.size() : 1;  // of lines, all axes say the same
  double least = std::numeric_limits<double>::infinity();
  double value = 0;
  for (const std::size_t point : data.curves[curve]) {
    const auto at = static_cast<Eigen::Index>(point);
    const double distance = (data.coordinates.row(at).head(axes) - coordinates.head(axes)).cwiseAbs().sum();
    if (distance >= least) continue;
    least = distance;
    value = data.log_seconds(at);
  }
  return value;
}

std::vector<int> merge_groups(const std::vector<int>& groups, int most) {
  if (count_groups(groups) <= most) return groups;
  // A fixed hash spreads neighbours over the folds.
  std::vector<int> merged;
  for (const int group : groups) {
    const std::uint64_t mixed = (static_cast<std::uint64_t>(group) + 1) * 0x9e3779b97f4a7c15ULL;
    merged.push_back(static_cast<int>((mixed >> 33) % static_cast<std::uint64_t>(most)));
  }
  return merged;
}

std::vector<int> row_groups_of(const KernelData& data, const std::vector<int>& curve_groups) {
  std::vector<int> groups(data.rows(), 0);
  for (std::size_t curve = 0; curve < data.curves.size(); ++curve) {
    for (const std::size_t row : data.curves[curve]) groups[row] = curve_groups[curve];
  }
  return groups;
}

KernelModel fit_kernel_part(const KernelData& data, const std::shared_ptr<const KernelLaw>& law,
                            const std::vector<bool>& use_curve, double noise) {
  KernelModel model;
  model.law = law;
  model.grid = data.grid;
  model.noise = noise;
  model.coefficients = fit_mean(data, *law, rows_in(data, use_curve), {});
  std::vector<Eigen::Index> curves;
  for (std::size_t curve = 0; curve < use_curve.size(); ++curve) {
    if (use_curve[curve]) curves.push_back(static_cast<Eigen::Index>(curve));
  }
  if (curves.empty()) return model;
  const Eigen::MatrixXd features = rows_of(data.features, curves);
  const Eigen::MatrixXd values = residual_curves(data, curves, log_means(data, *law, model.coefficients));
  model.features = features.cast<float>();
  model.own = values.leftCols(data.grid.own_nodes()).cast<float>();
  model.landmarks = choose_landmarks(law->kernel(), features);
  if (static_cast<int>(curves.size()) >= kLeastCurves) {
    CurveOptions options;
    options.noise = noise;
    const Eigen::MatrixXd covariance = curve_covariance(law->kernel(), features, features);
    model.weights = fit_curves(covariance, values, options).weights().cast<float>();
  }
  model.largest_position = -std::numeric_limits<double>::infinity();
  for (const Eigen::Index curve : curves) {
    const std::size_t last = data.curves[static_cast<std::size_t>(curve)].back();
    model.largest_position = std::max(model.largest_position, data.coordinates(static_cast<Eigen::Index>(last), 0));
  }
  return model;
}

LeftOutRows leave_groups_out(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups, double noise,
                             HoldOut how) {
  const auto rows = static_cast<Eigen::Index>(data.rows());
  const int count = count_groups(groups);
  LeftOutRows out;
  out.log_mean.resize(rows);
  out.log_predicted.resize(rows);
  out.sigma.resize(rows);
  out.log_nearest.resize(rows);

  const Eigen::MatrixXd covariance = curve_covariance(law.kernel(), data.features, data.features);
  std::vector<bool> all(data.curves.size(), true);
  const Eigen::VectorXd common = fit_mean(data, law, rows_in(data, all), {});
  CurveOptions options;
  options.noise = noise;
  CurveFit whole;
  std::vector<Eigen::Index> every(data.curves.size());
  std::iota(every.begin(), every.end(), Eigen::Index{0});
  if (how == HoldOut::fast) {
    whole = fit_curves(covariance, residual_curves(data, every, log_means(data, law, common)), options);
  }
  for (int group = 0; group < count; ++group) {
    std::vector<bool> use(data.curves.size());
    std::vector<Eigen::Index> kept, held;
    for (std::size_t curve = 0; curve < groups.size(); ++curve) {
      use[curve] = groups[curve] != group;
      (use[curve] ? kept : held).push_back(static_cast<Eigen::Index>(curve));
    }
    MeanFitOptions mean_options;
    if (how == HoldOut::fast) mean_options.evaluations = 10;
    const Eigen::VectorXd coefficients =
        fit_mean(data, law, rows_in(data, use), how == HoldOut::fast ? common : Eigen::VectorXd(), mean_options);
    const Eigen::VectorXd means = log_means(data, law, coefficients);
    const Eigen::MatrixXd cross = covariance(held, kept);
    Eigen::MatrixXd residuals = Eigen::MatrixXd::Zero(static_cast<Eigen::Index>(held.size()), data.grid.nodes());
    if (static_cast<int>(kept.size()) >= kLeastCurves) {
      if (how == HoldOut::exact) {
        const CurveFit fit = fit_curves(covariance(kept, kept), residual_curves(data, kept, means), options);
        residuals = cross * fit.weights();
      } else {
        // What the whole inverse says of a group without it: Y_g - (inverse_gg)^-1 (inverse Y)_g, at this fold's means.
        const Eigen::MatrixXd raw = residual_curves(data, every, means);
        const Eigen::MatrixXd pulled =
            whole.values + (raw - residual_curves(data, every, log_means(data, law, common)));
        const Eigen::MatrixXd block = whole.inverse(held, held);
        const Eigen::MatrixXd weighted = whole.inverse(held, every) * pulled;
        residuals = pulled(held, Eigen::all) - block.llt().solve(weighted);
      }
    }
    const Landmarks landmarks = choose_landmarks(law.kernel(), rows_of(data.features, kept));
    const double variance = law.kernel().variance();
    Eigen::VectorXd explained = Eigen::VectorXd::Zero(static_cast<Eigen::Index>(held.size()));
    if (!kept.empty()) {
      const Eigen::MatrixXd near =
          curve_covariance(law.kernel(), landmarks.features.cast<double>(), rows_of(data.features, held));
      const Eigen::MatrixXd whitened = landmarks.factor.cast<double>().triangularView<Eigen::Lower>() * near;
      explained = whitened.colwise().squaredNorm().transpose();
    }
    for (std::size_t h = 0; h < held.size(); ++h) {
      const auto at = static_cast<Eigen::Index>(h);
      Eigen::Index nearest = 0;
      if (!kept.empty()) cross.row(at).maxCoeff(&nearest);
      for (const std::size_t row : data.curves[static_cast<std::size_t>(held[h])]) {
        const auto r = static_cast<Eigen::Index>(row);
        std::array<double, CurveGrid::kMostAxes> coordinates{};
        for (Eigen::Index axis = 0; axis < data.coordinates.cols(); ++axis) {
          coordinates[static_cast<std::size_t>(axis)] = data.coordinates(r, axis);
        }
        const CurveGrid::Place place = data.grid.place(coordinates.data());
        double residual = 0;
        for (int i = 0; i < place.count; ++i) {
          residual += place.share[static_cast<std::size_t>(i)] * residuals(at, place.node[static_cast<std::size_t>(i)]);
        }
        out.log_mean(r) = means(r);
        out.log_predicted(r) = means(r) + residual;
        out.sigma(r) = std::sqrt(std::max(variance - explained(at), 0.0) + kVarianceFloor);
        out.log_nearest(r) =
            kept.empty() ? means(r)
                         : nearest_log_seconds(data, static_cast<std::size_t>(kept[static_cast<std::size_t>(nearest)]),
                                               data.coordinates.row(r));
      }
    }
  }
  return out;
}

ScoreInterval score_interval(const KernelData& data, const LeftOutRows& rows, const std::vector<int>& row_groups,
                             int skip) {
  const int count = count_groups(row_groups);
  ScoreInterval interval;
  for (std::size_t band = 0; band < kKernelBands; ++band) {
    std::vector<double> pooled;
    std::vector<std::vector<double>> by_group(static_cast<std::size_t>(count));
    for (std::size_t row = 0; row < data.rows(); ++row) {
      const auto r = static_cast<Eigen::Index>(row);
      if (row_groups[row] == skip || kernel_band(data.band_size(r)) != band) continue;
      const double score = (data.log_seconds(r) - rows.log_predicted(r)) / rows.sigma(r);
      pooled.push_back(score);
      by_group[static_cast<std::size_t>(row_groups[row])].push_back(score);
    }
    interval.low[band] = -kUnknownScore;
    interval.high[band] = kUnknownScore;
    if (pooled.empty()) continue;
    constexpr double kTail = (1 - kCoverage) / 2;
    std::vector<double> lows, highs;
    for (const std::vector<double>& scores : by_group) {
      if (scores.empty()) continue;
      lows.push_back(quantile(scores, kTail));
      highs.push_back(quantile(scores, 1 - kTail));
    }
    interval.low[band] = std::min({quantile(pooled, kTail), quantile(lows, 1 - kShapeQuantile), -1e-3});
    interval.high[band] = std::max({quantile(pooled, 1 - kTail), quantile(highs, kShapeQuantile), 1e-3});
  }
  return interval;
}

double choose_noise(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups) {
  constexpr std::array<double, 4> kTried{0.05, 0.15, 0.5, 1.5};
  std::vector<bool> all(data.curves.size(), true);
  const Eigen::VectorXd means = log_means(data, law, fit_mean(data, law, rows_in(data, all), {}));
  std::vector<Eigen::Index> every(data.curves.size());
  std::iota(every.begin(), every.end(), Eigen::Index{0});
  const Eigen::MatrixXd covariance = curve_covariance(law.kernel(), data.features, data.features);
  const Eigen::MatrixXd values = residual_curves(data, every, means);
  double best = kUsualNoise;
  double least = std::numeric_limits<double>::infinity();
  for (const double noise : kTried) {
    CurveOptions options;
    options.noise = noise;
    const CurveFit fit = fit_curves(covariance, values, options);
    std::vector<double> errors;
    for (int group = 0; group < count_groups(groups); ++group) {
      std::vector<Eigen::Index> held;
      for (std::size_t curve = 0; curve < groups.size(); ++curve) {
        if (groups[curve] == group) held.push_back(static_cast<Eigen::Index>(curve));
      }
      const Eigen::MatrixXd weighted = fit.inverse(held, every) * fit.values;
      const Eigen::MatrixXd block = fit.inverse(held, held);
      const Eigen::MatrixXd error =
          values(held, Eigen::all) - fit.values(held, Eigen::all) + block.llt().solve(weighted);
      for (Eigen::Index j = 0; j < error.cols(); ++j) {
        for (Eigen::Index i = 0; i < error.rows(); ++i) errors.push_back(std::abs(error(i, j)));
      }
    }
    const double middle = median(std::move(errors));
    // A larger noise has to earn it: the surface is then less bound to what was measured.
    if (middle < least * 0.98) {
      least = middle;
      best = noise;
    }
  }
  return best;
}

KernelModel fit_kernel(const KernelSamples& samples, const std::shared_ptr<const KernelLaw>& law,
                       RankLoadCache& loads) {
  const KernelData data = make_kernel_data(samples, *law, loads);
  const std::vector<int> every_shape = curve_groups(samples, data.curves, law->group_columns("shape"));
  const int shapes = count_groups(every_shape);
  const std::vector<int> groups = merge_groups(every_shape, kMostFolds);
  const int folds = count_groups(groups);
  const double noise = shapes >= 3 ? choose_noise(data, *law, groups) : kUsualNoise;
  KernelModel model = fit_kernel_part(data, law, std::vector<bool>(data.curves.size(), true), noise);
  model.key = samples.key;
  model.shapes = shapes;
  model.rows = static_cast<int>(samples.size());
  model.scores.low.fill(-kUnknownScore);
  model.scores.high.fill(kUnknownScore);
  if (shapes < 2) return model;
  const LeftOutRows rows = leave_groups_out(data, *law, groups, noise, HoldOut::fast);
  const std::vector<int> row_groups = row_groups_of(data, groups);
  model.scores = score_interval(data, rows, row_groups, -1);
  std::vector<Outcome> outcomes;
  std::vector<ScoreInterval> without;
  for (int group = 0; group < folds; ++group) without.push_back(score_interval(data, rows, row_groups, group));
  for (std::size_t row = 0; row < data.rows(); ++row) {
    const auto r = static_cast<Eigen::Index>(row);
    const ScoreInterval& interval = without[static_cast<std::size_t>(row_groups[row])];
    const std::size_t band = kernel_band(data.band_size(r));
    Outcome outcome;
    outcome.predicted_s = std::exp(rows.log_predicted(r));
    outcome.low_s = std::exp(rows.log_predicted(r) + rows.sigma(r) * interval.low[band]);
    outcome.high_s = std::exp(rows.log_predicted(r) + rows.sigma(r) * interval.high[band]);
    outcome.measured_s = std::exp(data.log_seconds(r));
    outcomes.push_back(outcome);
  }
  model.left_out = summarise_errors(outcomes);
  return model;
}

}  // namespace moecast
