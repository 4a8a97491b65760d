#include "sim/cost/kernel/kernel_model.h"

#include <algorithm>
#include <cmath>

#include "sim/fit/lane_math.h"

namespace moecast {
namespace {

constexpr float kLog2E = 1.44269504F;
/// Scaled squared distance below which two configurations are the same one.
constexpr float kSame = 1e-9F;
/// Variance (of 1.3) from which a configuration counts as far from everything measured.
constexpr double kFarVariance = 0.9;
/// Of a feature that was stored in single precision.
constexpr double kRounded = 1e-4;
/// Doublings from a measured position of its own curve up to which a point counts as interpolated.
constexpr double kNearGap = 0.5;

/// Covariances of one configuration with the rows of `features`; returns the least distance in the first term.
float covariances(const CurveKernel& kernel, const Eigen::MatrixXf& features, const double* at,
                  CompiledKernel::Workspace& workspace) {
  const Eigen::Index rows = features.rows();
  Eigen::ArrayXf& distance = workspace.distance;
  Eigen::VectorXf& out = workspace.covariance;
  distance.resize(rows);
  out.resize(rows);
  out.setZero();
  float least = 1e30F;
  for (const CurveKernel::Term& part : kernel.terms) {
    distance.setZero();
    for (const CurveKernel::Scale& scale : part.scales) {
      const auto inverse = static_cast<float>(1 / scale.length);
      const auto value = static_cast<float>(at[scale.feature]);
      distance += ((features.col(scale.feature).array() - value) * inverse).square();
    }
    if (&part == &kernel.terms.front() && rows > 0) least = distance.minCoeff();
    const auto variance = static_cast<float>(part.variance);
    const float* squared = distance.data();
    float* sum = out.data();
    for (Eigen::Index i = 0; i < rows; ++i) {
      const float s = std::sqrt(3 * squared[i]);
      sum[i] += variance * (1 + s) * lane_exp2(-s * kLog2E);
    }
  }
  return least;
}

/// Share of a left-out interval that is left so many doublings from what was measured of the same curve. Far away it is
/// wider than that of a neighbour, whose distance says how unsure it is: with 1.6 the ends that were cut from a fourth
/// of H200's fp8_block curves are covered.
double share_at_gap(double gap) {
  constexpr double kLength = 2;  // doublings
  constexpr double kFar = 1.6;
  const double s = std::sqrt(3.0) * gap / kLength;
  const double correlation = (1 + s) * std::exp(-s);
  return kFar * std::sqrt(std::max(0.0, 1 - correlation * correlation));
}

}  // namespace

CompiledKernel::CompiledKernel(const KernelModel& model, std::span<const double> row, Workspace& workspace)
    : model_(&model) {
  model.law->prepare(model.coefficients.data(), prepared_.data());
  std::array<double, 32> features{};
  model.law->feature_values(row, features.data());
  const CurveKernel& kernel = model.law->kernel();
  const KernelArrays& arrays = model.arrays();
  kriged_ = arrays.weights.rows() > 0;
  const double variance = kernel.variance();
  sigma_ = std::sqrt(variance + kVarianceFloor);
  if (arrays.features.rows() == 0) return;
  const float least = covariances(kernel, arrays.features, features.data(), workspace);
  const auto landmarks = static_cast<Eigen::Index>(model.landmarks.size());
  workspace.near.resize(landmarks);
  for (Eigen::Index i = 0; i < landmarks; ++i) {
    workspace.near(i) = workspace.covariance(model.landmarks[static_cast<std::size_t>(i)]);
  }
  double explained = 0;
  for (Eigen::Index i = 0; i < landmarks; ++i) {
    const float part = arrays.landmark_factor.row(i).head(i + 1).dot(workspace.near.head(i + 1));
    explained += static_cast<double>(part) * static_cast<double>(part);
  }
  sigma_ = std::sqrt(std::max(variance - explained, 0.0) + kVarianceFloor);
  own_ = least < kSame;
  for (const CurveKernel::Scale& scale : kernel.terms.front().scales) {
    const auto f = static_cast<Eigen::Index>(scale.feature);
    if (arrays.least(f) == arrays.most(f)) continue;  // never varied: no range to be outside of
    const double at = features[static_cast<std::size_t>(scale.feature)];
    const double above = at - static_cast<double>(arrays.most(f));
    const double below = static_cast<double>(arrays.least(f)) - at;
    if (const double beyond = std::max(above, below); beyond > kRounded) outside_ += beyond / scale.length;
  }
  if (kriged_) {
    Eigen::Map<Eigen::VectorXf> residual(residual_.data(), arrays.weights.cols());
    residual.noalias() = arrays.weights.transpose() * workspace.covariance;
  }
  if (own_) {
    workspace.covariance.maxCoeff(&curve_);
    const Eigen::Index first_short = arrays.features.rows() - std::ssize(model.short_curve_shares);
    if (curve_ >= first_short) own_share_ = model.short_curve_shares[static_cast<std::size_t>(curve_ - first_short)];
    if (model.inherited) own_share_ = 1;
    for (Eigen::Index n = 0; n < arrays.own.cols(); ++n)
      residual_[static_cast<std::size_t>(n)] += arrays.own(curve_, n);
  }
}

CompiledKernel::Answer CompiledKernel::at(const KernelRow& row, RankLoadCache& loads) const {
  const KernelModel& model = *model_;
  std::array<double, KernelLaw::kMostTerms> terms{};
  model.law->derive(row, loads, terms.data());
  std::array<double, CurveGrid::kMostAxes> coordinates{};
  model.law->coordinates(row.values, coordinates.data());
  Answer answer;
  answer.log_seconds = model.law->log_seconds(terms.data(), prepared_.data());
  double gap = 0;
  if (own_ || kriged_) {
    const Eigen::MatrixXf& gaps = model.arrays().gaps;
    const CurveGrid::Place place =
        own_ ? model.grid.own_place(coordinates.data()) : model.grid.place(coordinates.data());
    for (int i = 0; i < place.count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      answer.log_seconds += place.share[at] * static_cast<double>(residual_[static_cast<std::size_t>(place.node[at])]);
      if (own_) gap += place.share[at] * static_cast<double>(gaps(curve_, place.node[at]));
    }
  }
  const IntervalStratum stratum = model.law->stratum(row.values);
  const double low = model.scores.low_of(stratum);
  const double high = model.scores.high_of(stratum);
  if (own_ && own_share_ == 0 && !row.load) {
    const double half_width = model.law->measured_half_width(row.values);
    const double unsure = share_at_gap(gap) * sigma_;
    answer.log_low = answer.log_seconds - std::hypot(half_width, unsure * low);
    answer.log_high = answer.log_seconds + std::hypot(half_width, unsure * high);
    answer.origin = gap < kNearGap ? Origin::interpolated : Origin::fitted;
  } else {
    const double share = own_share_ > 0 ? own_share_ : 1;
    answer.log_low = answer.log_seconds + share * sigma_ * low;
    answer.log_high = answer.log_seconds + share * sigma_ * high;
    answer.origin = Origin::fitted;
  }
  if (coordinates[0] > model.largest_position + 1e-9 || sigma_ * sigma_ > kFarVariance || outside_ > 0) {
    answer.origin = Origin::extrapolated;
    // Each doubling beyond the last measured position, and each length outside of the measured shapes, adds half of the
    // interval.
    const double beyond = 1 + 0.5 * (std::max(0.0, coordinates[0] - model.largest_position) + outside_);
    answer.log_low = answer.log_seconds + (answer.log_low - answer.log_seconds) * beyond;
    answer.log_high = answer.log_seconds + (answer.log_high - answer.log_seconds) * beyond;
  }
  const double machine = model.law->machine_size(row.values);
  if (machine > model.largest_machine) {
    answer.origin = Origin::extrapolated;
    const MachineGrowth growth =
        machine_growth(machine, model.largest_machine, model.law->growth_half_width(row.values));
    answer.log_low -= growth.low;
    answer.log_high += growth.high;
  }
  return answer;
}

}  // namespace moecast
