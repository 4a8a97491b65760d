#include "sim/fit/kriging_lanes.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moecast {
namespace {

constexpr auto kLaneLog2e = static_cast<float>(std::numbers::log2e);

}  // namespace

KrigingLanes::KrigingLanes(const Kriging& kriging)
    : features_(static_cast<int>(std::min<Eigen::Index>(kriging.lengths().size(), kMostFeatures))) {
  for (int j = 0; j < features_; ++j) {
    per_length_[static_cast<std::size_t>(j)] = static_cast<float>(1 / kriging.lengths()(j));
  }
  const Eigen::Index count = kriging.features().rows();
  points_.assign(static_cast<std::size_t>((count + kLanes - 1) / kLanes), Points{});
  for (Eigen::Index i = 0; i < count; ++i) {
    Points& points = points_[static_cast<std::size_t>(i / kLanes)];
    const auto lane = static_cast<std::size_t>(i % kLanes);
    for (int j = 0; j < features_; ++j) {
      points.scaled[static_cast<std::size_t>(j)][lane] =
          static_cast<float>(kriging.features()(i, j) / kriging.lengths()(j));
    }
    points.weights[lane] = static_cast<float>(kriging.variance() * kriging.weights()(i));
    points.present[lane] = 1;
  }
}

Kriging::Evaluation KrigingLanes::evaluate(const std::array<float, kMostFeatures>& features) const noexcept {
  std::array<float, kMostFeatures> x{};
  for (int j = 0; j < features_; ++j) {
    x[static_cast<std::size_t>(j)] = features[static_cast<std::size_t>(j)] * per_length_[static_cast<std::size_t>(j)];
  }
  Lane mean{};
  Lane near{};
  for (const Points& points : points_) {
    Lane squared{};
    for (int j = 0; j < features_; ++j) {
      const auto& column = points.scaled[static_cast<std::size_t>(j)];
      const float at = x[static_cast<std::size_t>(j)];
#pragma GCC unroll 1  // unrolled loops are not vectorised
      for (int lane = 0; lane < kLanes; ++lane) squared[lane] += (column[lane] - at) * (column[lane] - at);
    }
    // One step a loop: all in one is not vectorised.
    Lane distance;
    Lane correlation;
#pragma GCC unroll 1  // unrolled loops are not vectorised
    for (int lane = 0; lane < kLanes; ++lane) distance[lane] = std::sqrt(3 * squared[lane]);
#pragma GCC unroll 1  // unrolled loops are not vectorised
    for (int lane = 0; lane < kLanes; ++lane) correlation[lane] = lane_exp2(-kLaneLog2e * distance[lane]);
#pragma GCC unroll 1  // unrolled loops are not vectorised
    for (int lane = 0; lane < kLanes; ++lane) correlation[lane] *= (1 + distance[lane]) * points.present[lane];
#pragma GCC unroll 1  // unrolled loops are not vectorised
    for (int lane = 0; lane < kLanes; ++lane) mean[lane] += correlation[lane] * points.weights[lane];
#pragma GCC unroll 1  // unrolled loops are not vectorised
    for (int lane = 0; lane < kLanes; ++lane) near[lane] = larger_of(near[lane], correlation[lane]);
  }
  Kriging::Evaluation evaluation;
  for (int lane = 0; lane < kLanes; ++lane) {
    evaluation.mean += static_cast<double>(mean[lane]);
    evaluation.nearness = std::max(evaluation.nearness, static_cast<double>(near[lane]));
  }
  return evaluation;
}

}  // namespace moecast
