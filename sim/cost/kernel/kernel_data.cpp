#include "sim/cost/kernel/kernel_data.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "sim/cost/kernel/table_load.h"
#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

constexpr double kCoefficientStep = 1e-4;
/// Kernels that take so long at least are not bound by launches; none is so many times slower than that.
constexpr double kLaunchesHide = 20e-6;
constexpr double kSlowerThanAnything = 300;
/// A row may be this much faster than the datasheet: clocks above the boost that the peak is computed with.
constexpr double kFasterThanPeak = 0.95;

/// Drops every second node of the longest axis; its ends stay.
void thin_longest(CurveGrid& grid) {
  auto& axis = *std::max_element(grid.axes.begin(), grid.axes.end(),
                                 [](const auto& a, const auto& b) { return a.size() < b.size(); });
  std::vector<double> kept;
  for (std::size_t i = 0; i < axis.size(); ++i) {
    if (i % 2 == 0 || i + 1 == axis.size()) kept.push_back(axis[i]);
  }
  axis = std::move(kept);
}

CurveGrid make_grid(const KernelData& data, const KernelLaw& law) {
  CurveGrid grid;
  grid.plane = law.plane();
  for (int axis = 0; axis < law.axes(); ++axis) {
    std::vector<double> nodes = law.fixed_nodes(axis);
    if (!nodes.empty()) {
      // Beyond what was measured a residual is constant: no nodes there.
      const double low = data.coordinates.col(axis).minCoeff();
      const double high = data.coordinates.col(axis).maxCoeff();
      while (nodes.size() > 1 && nodes[1] <= low) nodes.erase(nodes.begin());
      while (nodes.size() > 1 && nodes[nodes.size() - 2] >= high) nodes.pop_back();
    } else {
      const std::set<double> measured(data.coordinates.col(axis).begin(), data.coordinates.col(axis).end());
      nodes.assign(measured.begin(), measured.end());
    }
    grid.axes.push_back(std::move(nodes));
  }
  while (grid.nodes() > CurveGrid::kMostNodes) thin_longest(grid);
  return grid;
}

/// Two nodes with 12 multiprocessors are slower than with 8 in the one table of them.
bool odd_multiprocessors(const KernelSamples& samples, std::size_t row) {
  if (samples.key.layout != "wideep_deepep_normal") return false;
  const KernelLayout& layout = samples.layout();
  return samples.columns[layout.column("node_num")][row] == 2 &&
         samples.columns[layout.column("dispatch_sms")][row] == 12;
}

}  // namespace

Eigen::VectorXd KernelData::residual_curve(std::size_t curve, const Eigen::VectorXd& log_mean) const {
  const std::vector<std::size_t>& points = curves[curve];
  Eigen::MatrixXd at(points.size(), coordinates.cols());
  Eigen::VectorXd values(points.size());
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto row = static_cast<Eigen::Index>(points[i]);
    at.row(static_cast<Eigen::Index>(i)) = coordinates.row(row);
    values(static_cast<Eigen::Index>(i)) = log_seconds(row) - log_mean(row);
  }
  return grid.resample(at, values);
}

Eigen::VectorXd KernelData::gaps(std::size_t curve) const {
  const std::vector<std::size_t>& points = curves[curve];
  Eigen::MatrixXd at(points.size(), coordinates.cols());
  for (std::size_t i = 0; i < points.size(); ++i) {
    at.row(static_cast<Eigen::Index>(i)) = coordinates.row(static_cast<Eigen::Index>(points[i]));
  }
  return grid.gaps(at);
}

KernelData make_kernel_data(const KernelSamples& samples, const KernelLaw& law, RankLoadCache& loads) {
  KernelData data;
  const auto rows = static_cast<Eigen::Index>(samples.size());
  data.terms = KernelData::Terms::Zero(rows, KernelLaw::kMostTerms);
  data.log_seconds.resize(rows);
  data.coordinates.resize(rows, law.axes());
  data.strata.resize(samples.size());
  data.machine.resize(rows);
  data.growth_half_width.resize(rows);
  std::vector<double> values;
  std::array<double, CurveGrid::kMostAxes> at{};
  for (Eigen::Index row = 0; row < rows; ++row) {
    samples.row(static_cast<std::size_t>(row), values);
    law.derive({values, table_load(samples.key, values, loads)}, loads, data.terms.row(row).data());
    data.log_seconds(row) = std::log(samples.latency_s[static_cast<std::size_t>(row)]);
    law.coordinates(values, at.data());
    for (Eigen::Index axis = 0; axis < law.axes(); ++axis) data.coordinates(row, axis) = at[axis];
    data.strata[static_cast<std::size_t>(row)] = law.stratum(values);
    data.machine(row) = law.machine_size(values);
    data.growth_half_width(row) = law.growth_half_width(values);
  }
  data.curves = curves_of(samples);
  const auto feature_count = static_cast<Eigen::Index>(law.features().size());
  data.features.resize(static_cast<Eigen::Index>(data.curves.size()), feature_count);
  std::vector<double> features(static_cast<std::size_t>(feature_count));
  for (std::size_t curve = 0; curve < data.curves.size(); ++curve) {
    samples.row(data.curves[curve].front(), values);
    law.feature_values(values, features.data());
    for (Eigen::Index f = 0; f < feature_count; ++f) {
      data.features(static_cast<Eigen::Index>(curve), f) = features[static_cast<std::size_t>(f)];
    }
  }
  data.grid = make_grid(data, law);
  return data;
}

RowFilter filter_rows(const KernelSamples& samples, const KernelLaw& law, RankLoadCache& loads) {
  RowFilter filter;
  filter.reasons = {"faster than the datasheet's peaks allow",
                    "two nodes with 12 multiprocessors (defect of the table)",
                    "over 300 times slower than bytes and operations take: is the latency in the unit of its column?"};
  filter.reason.assign(samples.size(), -1);
  std::vector<double> values;
  std::array<double, KernelLaw::kMostTerms> terms{};
  for (std::size_t row = 0; row < samples.size(); ++row) {
    samples.row(row, values);
    law.derive({values, table_load(samples.key, values, loads)}, loads, terms.data());
    if (samples.latency_s[row] < kFasterThanPeak * law.least_seconds(terms.data())) {
      filter.reason[row] = 0;
    } else if (odd_multiprocessors(samples, row)) {
      filter.reason[row] = 1;
    } else if (const double least = law.roofline_seconds(terms.data());
               least > kLaunchesHide && samples.latency_s[row] > kSlowerThanAnything * least) {
      filter.reason[row] = 2;
    }
  }
  return filter;
}

std::vector<int> curve_groups(const KernelSamples& samples, const std::vector<std::vector<std::size_t>>& curves,
                              const std::vector<std::string_view>& columns) {
  const KernelLayout& layout = samples.layout();
  std::map<std::vector<double>, int> numbers;
  std::vector<int> groups;
  for (const auto& curve : curves) {
    std::vector<double> key;
    for (const std::string_view column : columns) key.push_back(samples.columns[layout.column(column)][curve.front()]);
    groups.push_back(numbers.emplace(key, static_cast<int>(numbers.size())).first->second);
  }
  return groups;
}

Eigen::VectorXd log_means(const KernelData& data, const KernelLaw& law, const Eigen::VectorXd& coefficients) {
  std::array<double, KernelLaw::kMostCoefficients> prepared{};
  law.prepare(coefficients.data(), prepared.data());
  Eigen::VectorXd means(data.log_seconds.size());
  for (Eigen::Index row = 0; row < means.size(); ++row) {
    means(row) = law.log_seconds(data.terms.row(row).data(), prepared.data());
  }
  return means;
}

Eigen::VectorXd fit_mean(const KernelData& data, const KernelLaw& law, const std::vector<bool>& use,
                         const Eigen::VectorXd& start, const MeanFitOptions& options) {
  std::vector<Eigen::Index> rows;
  for (std::size_t row = 0; row < use.size(); ++row) {
    if (use[row]) rows.push_back(static_cast<Eigen::Index>(row));
  }
  // Fisher-Yates by hand: std::shuffle differs between libraries.
  std::mt19937_64 random(options.seed);
  const std::size_t wanted = std::min(rows.size(), static_cast<std::size_t>(options.most_rows));
  for (std::size_t i = 0; i < wanted; ++i) std::swap(rows[i], rows[i + random() % (rows.size() - i)]);
  rows.resize(wanted);

  const std::span<const KernelLaw::Coefficient> known = law.coefficients();
  const auto count = static_cast<Eigen::Index>(known.size());
  Eigen::VectorXd prior(count);
  Eigen::VectorXd width(count);
  for (Eigen::Index i = 0; i < count; ++i) {
    prior(i) = known[static_cast<std::size_t>(i)].prior;
    width(i) = known[static_cast<std::size_t>(i)].width;
  }
  if (options.prior.size() == count) prior = options.prior;
  width *= options.prior_width;
  const double weight = law.prior_weight(rows.size());
  LeastSquaresProblem problem;
  problem.most_evaluations = options.evaluations;
  problem.residuals = [&](const Eigen::VectorXd& p) {
    std::array<double, KernelLaw::kMostCoefficients> prepared{};
    law.prepare(p.data(), prepared.data());
    Eigen::VectorXd residuals(static_cast<Eigen::Index>(rows.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const double value = law.log_seconds(data.terms.row(rows[i]).data(), prepared.data()) - data.log_seconds(rows[i]);
      residuals(static_cast<Eigen::Index>(i)) = std::isfinite(value) ? value : 50.0;
    }
    return residuals;
  };
  problem.penalties = [&](const Eigen::VectorXd& p) {
    return Eigen::VectorXd(weight * (p - prior).cwiseQuotient(width));
  };
  const Eigen::VectorXd fitted = fit_least_squares(problem, start.size() == count ? start : prior);
  return (fitted / kCoefficientStep).array().round() * kCoefficientStep;
}

}  // namespace moecast
