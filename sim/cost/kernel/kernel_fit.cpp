#include "sim/cost/kernel/kernel_fit.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "models/core/statistics.h"
#include "sim/cost/kernel/few_samples.h"
#include "sim/cost/kernel/landmarks.h"
#include "sim/cost/kernel/left_out_scores.h"

namespace moecast {
namespace {

std::vector<Eigen::Index> all_curves(const KernelData& data) {
  std::vector<Eigen::Index> every(data.curves.size());
  std::iota(every.begin(), every.end(), Eigen::Index{0});
  return every;
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

/// Values of the group columns of each group.
std::vector<std::string> group_names(const KernelSamples& samples, const KernelData& data,
                                     const std::vector<int>& groups, const std::vector<std::string_view>& columns) {
  std::vector<std::string> names(static_cast<std::size_t>(count_groups(groups)));
  for (std::size_t curve = 0; curve < groups.size(); ++curve) {
    std::string name;
    for (const std::string_view column : columns) {
      name += std::to_string(samples.columns[samples.layout().column(column)][data.curves[curve].front()]) + " ";
    }
    names[static_cast<std::size_t>(groups[curve])] = std::move(name);
  }
  return names;
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

WholeFit fit_whole(const KernelData& data, const KernelLaw& law) {
  WholeFit whole;
  whole.coefficients = fit_mean(data, law, std::vector<bool>(data.rows(), true), {});
  whole.log_mean = log_means(data, law, whole.coefficients);
  whole.residuals = residual_curves(data, all_curves(data), whole.log_mean);
  whole.covariance = curve_covariance(law.kernel(), data.features, data.features);
  return whole;
}

namespace {

/// One fold of a hold-out: which curves it sees, and the physics that it fits to them.
struct Fold {
  std::vector<Eigen::Index> kept, held;
  Eigen::VectorXd log_mean;
};

Fold make_fold(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups, int group,
               const Eigen::VectorXd& start, const MeanFitOptions& options) {
  Fold fold;
  std::vector<bool> use(groups.size());
  for (std::size_t curve = 0; curve < groups.size(); ++curve) {
    use[curve] = groups[curve] != group;
    (use[curve] ? fold.kept : fold.held).push_back(static_cast<Eigen::Index>(curve));
  }
  fold.log_mean = log_means(data, law, fit_mean(data, law, rows_in(data, use), start, options));
  return fold;
}

/// What landmarks that a fold sees leave unexplained of the curves that it does not.
Eigen::VectorXd fold_variance(const KernelData& data, const KernelLaw& law, const Fold& fold) {
  const auto held = static_cast<Eigen::Index>(fold.held.size());
  const double variance = law.kernel().variance();
  if (fold.kept.empty()) return Eigen::VectorXd::Constant(held, variance);
  const Eigen::MatrixXd kept = rows_of(data.features, fold.kept);
  const LandmarkFit landmarks = choose_landmarks(law.kernel(), kept);
  const Eigen::MatrixXd near =
      curve_covariance(law.kernel(), rows_of(kept, landmarks.rows), rows_of(data.features, fold.held));
  const Eigen::MatrixXd whitened = landmarks.factor.triangularView<Eigen::Lower>() * near;
  return (variance - whitened.colwise().squaredNorm().array()).max(0.0).matrix().transpose();
}

void store_fold(const KernelData& data, const KernelLaw& law, const Fold& fold, const Eigen::MatrixXd& covariance,
                const Eigen::MatrixXd& residuals, LeftOutRows& out) {
  const Eigen::VectorXd variance = fold_variance(data, law, fold);
  for (std::size_t h = 0; h < fold.held.size(); ++h) {
    const auto at = static_cast<Eigen::Index>(h);
    Eigen::Index nearest = 0;
    if (!fold.kept.empty()) covariance(fold.held[h], fold.kept).maxCoeff(&nearest);
    for (const std::size_t row : data.curves[static_cast<std::size_t>(fold.held[h])]) {
      const auto r = static_cast<Eigen::Index>(row);
      std::array<double, CurveGrid::kMostAxes> coordinates{};
      for (Eigen::Index axis = 0; axis < data.coordinates.cols(); ++axis) {
        coordinates[static_cast<std::size_t>(axis)] = data.coordinates(r, axis);
      }
      const CurveGrid::Place place = data.grid.place(coordinates.data());
      double residual = 0;
      for (std::size_t i = 0; i < static_cast<std::size_t>(place.count); ++i) {
        residual += place.share[i] * residuals(at, place.node[i]);
      }
      out.log_predicted(r) = fold.log_mean(r) + residual;
      out.sigma(r) = std::sqrt(variance(at) + kVarianceFloor);
      out.log_nearest(r) =
          fold.kept.empty()
              ? fold.log_mean(r)
              : nearest_log_seconds(data, static_cast<std::size_t>(fold.kept[static_cast<std::size_t>(nearest)]),
                                    data.coordinates.row(r));
    }
  }
}

LeftOutRows empty_rows(const KernelData& data) {
  const auto rows = static_cast<Eigen::Index>(data.rows());
  return {Eigen::VectorXd(rows), Eigen::VectorXd(rows), Eigen::VectorXd(rows)};
}

}  // namespace

LeftOutRows leave_groups_out(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups,
                             double noise) {
  LeftOutRows out = empty_rows(data);
  const Eigen::MatrixXd covariance = curve_covariance(law.kernel(), data.features, data.features);
  CurveOptions options;
  options.noise = noise;
  for (int group = 0; group < count_groups(groups); ++group) {
    const Fold fold = make_fold(data, law, groups, group, {}, {});
    Eigen::MatrixXd residuals = Eigen::MatrixXd::Zero(static_cast<Eigen::Index>(fold.held.size()), data.grid.nodes());
    if (static_cast<int>(fold.kept.size()) >= law.least_curves()) {
      const CurveFit fit =
          fit_curves(covariance(fold.kept, fold.kept), residual_curves(data, fold.kept, fold.log_mean), options);
      residuals = covariance(fold.held, fold.kept) * fit.weights();
    }
    store_fold(data, law, fold, covariance, residuals, out);
  }
  return out;
}

LeftOutRows leave_groups_out_fast(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups,
                                  const WholeFit& whole) {
  LeftOutRows out = empty_rows(data);
  const std::vector<Eigen::Index> every = all_curves(data);
  const Eigen::MatrixXd pull = whole.curves.values - whole.residuals;
  MeanFitOptions options;
  options.evaluations = 10;
  for (int group = 0; group < count_groups(groups); ++group) {
    const Fold fold = make_fold(data, law, groups, group, whole.coefficients, options);
    Eigen::MatrixXd residuals = Eigen::MatrixXd::Zero(static_cast<Eigen::Index>(fold.held.size()), data.grid.nodes());
    if (static_cast<int>(fold.kept.size()) >= law.least_curves()) {
      // What the whole inverse says of a group without it: Y_g - (inverse_gg)^-1 (inverse Y)_g, at this fold's means.
      const Eigen::MatrixXd values = residual_curves(data, every, fold.log_mean) + pull;
      const Eigen::MatrixXd block = whole.curves.inverse(fold.held, fold.held);
      const Eigen::MatrixXd weighted = whole.curves.inverse(fold.held, every) * values;
      residuals = values(fold.held, Eigen::all) - block.llt().solve(weighted);
    }
    store_fold(data, law, fold, whole.covariance, residuals, out);
  }
  return out;
}

double choose_noise(const Eigen::MatrixXd& covariance, const Eigen::MatrixXd& residuals, const std::vector<int>& groups,
                    double usual) {
  double best = usual;
  double least = std::numeric_limits<double>::infinity();
  std::vector<std::vector<Eigen::Index>> members(static_cast<std::size_t>(count_groups(groups)));
  for (std::size_t curve = 0; curve < groups.size(); ++curve) {
    members[static_cast<std::size_t>(groups[curve])].push_back(static_cast<Eigen::Index>(curve));
  }
  for (const double noise : {usual, 0.5, 1.5}) {
    CurveOptions options;
    options.noise = noise;
    options.rounds = 1;  // enough to compare
    const CurveFit fit = fit_curves(covariance, residuals, options);
    const Eigen::MatrixXd weighted = fit.weights();
    std::vector<double> errors;
    for (const std::vector<Eigen::Index>& held : members) {
      const Eigen::MatrixXd block = fit.inverse(held, held);
      const Eigen::MatrixXd error = residuals(held, Eigen::all) - fit.values(held, Eigen::all) +
                                    block.llt().solve(weighted(held, Eigen::all).eval());
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

namespace {

/// What a model keeps of a fit: the curves, their weights, and landmarks for the variance.
KernelModel model_of(const KernelData& data, const std::shared_ptr<const KernelLaw>& law, const WholeFit& whole) {
  KernelModel model;
  model.law = law;
  model.grid = data.grid;
  model.coefficients = whole.coefficients;
  const LandmarkFit landmarks = choose_landmarks(law->kernel(), data.features);
  for (const Eigen::Index row : landmarks.rows) model.landmarks.push_back(static_cast<int>(row));
  KernelArrays arrays;
  arrays.features = data.features.cast<float>();
  arrays.landmark_factor = landmarks.factor.cast<float>();
  Eigen::MatrixXd own = whole.residuals.leftCols(data.grid.own_nodes());
  if (whole.curves.inverse.size() > 0) {
    const Eigen::MatrixXd weights = whole.curves.weights();
    arrays.weights = weights.cast<float>();
    own -= whole.covariance * weights.leftCols(own.cols());
  }
  arrays.own = own.cast<float>();
  arrays.gaps.resize(own.rows(), own.cols());
  for (std::size_t curve = 0; curve < data.curves.size(); ++curve) {
    arrays.gaps.row(static_cast<Eigen::Index>(curve)) = data.gaps(curve).transpose().cast<float>();
  }
  model.lazy = std::make_shared<const LazyArrays>(std::move(arrays));
  model.largest_position = data.coordinates.col(0).maxCoeff();
  return model;
}

KernelModel fit_long_curves(const KernelSamples& samples, const KernelData& data,
                            const std::shared_ptr<const KernelLaw>& law) {
  const std::vector<int> every_shape = curve_groups(samples, data.curves, law->group_columns("shape"));
  const int shapes = count_groups(every_shape);
  const std::vector<int> groups = merge_groups(every_shape, kMostFolds);
  WholeFit whole = fit_whole(data, *law);
  CurveOptions options;
  options.noise = law->usual_noise();
  if (shapes >= 3) options.noise = choose_noise(whole.covariance, whole.residuals, groups, options.noise);
  if (static_cast<int>(data.curves.size()) >= law->least_curves()) {
    whole.curves = fit_curves(whole.covariance, whole.residuals, options);
  }
  KernelModel model = model_of(data, law, whole);
  model.noise = options.noise;
  model.key = samples.key;
  model.shapes = shapes;
  model.rows = static_cast<int>(samples.size());
  std::vector<double> values;
  for (const auto& curve : data.curves) {
    samples.row(curve.front(), values);
    model.largest_machine = std::max(model.largest_machine, law->machine_size(values));
  }
  model.scores = score_interval({}, -1);
  if (shapes < 2 || whole.curves.inverse.size() == 0) return model;
  const LeftOutRows rows = leave_groups_out_fast(data, *law, groups, whole);
  const std::vector<LeftOutScore> scores = left_out_scores(data, rows, row_groups_of(data, groups));
  const LeftOutIntervals intervals = left_out_intervals(scores, caution_for(shapes));
  model.scores = intervals.whole;
  model.left_out = summarise_left_out(scores, intervals);
  if (law->pools_scores()) {
    model.left_out_scores = scores;
    model.left_out_groups = group_names(samples, data, groups, law->group_columns("shape"));
  }
  return model;
}

}  // namespace

KernelModel fit_kernel(const KernelSamples& all, const std::shared_ptr<const KernelLaw>& law, RankLoadCache& loads) {
  const KernelData every = make_kernel_data(all, *law, loads);
  const std::vector<bool> is_short = short_curves(every);
  const bool some_short = std::find(is_short.begin(), is_short.end(), true) != is_short.end();
  if (!some_short) return fit_long_curves(all, every, law);
  std::vector<std::size_t> rows;
  for (std::size_t curve = 0; curve < is_short.size(); ++curve) {
    if (!is_short[curve]) rows.insert(rows.end(), every.curves[curve].begin(), every.curves[curve].end());
  }
  const KernelSamples samples = pick_rows(all, rows);
  KernelModel model = fit_long_curves(samples, make_kernel_data(samples, *law, loads), law);
  add_short_curves(every, is_short, model);
  model.rows = static_cast<int>(all.size());
  return model;
}

}  // namespace moecast
