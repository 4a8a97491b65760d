#include "sim/cost/stage_lanes.h"

#include <algorithm>
#include <cmath>

namespace moecast {
namespace {

const std::array<float, StageLaw::kByteNodes> kNodeOctaves = [] {
  std::array<float, StageLaw::kByteNodes> octaves{};
  for (std::size_t i = 0; i < octaves.size(); ++i) octaves[i] = static_cast<float>(std::log2(StageLaw::kNodeBytes[i]));
  return octaves;
}();

}  // namespace

StageCoefficients::StageCoefficients(const StageCalibration& calibration)
    : half_width(static_cast<float>(calibration.half_width)) {
  const Eigen::VectorXd& all = calibration.law.coefficients();
  const Eigen::Index terms = all.size() - StageLaw::kByteNodes;
  for (Eigen::Index i = 0; i < std::min<Eigen::Index>(terms, kMostWork); ++i) {
    work[static_cast<std::size_t>(i)] = static_cast<float>(all(i));
  }
  const auto bytes = all.tail(StageLaw::kByteNodes);
  first = static_cast<float>(bytes(0));
  double slope = 0;
  for (Eigen::Index i = 0; i < StageLaw::kByteNodes; ++i) {
    const auto at = static_cast<std::size_t>(i);
    double next = 0;
    if (i + 1 < StageLaw::kByteNodes) {
      next = (bytes(i + 1) - bytes(i)) / std::log2(StageLaw::kNodeBytes[at + 1] / StageLaw::kNodeBytes[at]);
    }
    slopes[at] = static_cast<float>(next - slope);
    slope = next;
  }
}

StageLanes::Lane StageLanes::memory_seconds() const noexcept {
  Lane x;
  Lane per_byte = first;
  for (std::size_t i = 0; i < kLanes; ++i) x[i] = lane_log2(footprint_bytes[i] > 1 ? footprint_bytes[i] : 1.0F);
  for (std::size_t node = 0; node < slopes.size(); ++node) {
    const float at = kNodeOctaves[node];
    for (std::size_t i = 0; i < kLanes; ++i) per_byte[i] += slopes[node][i] * (x[i] > at ? x[i] - at : 0.0F);
  }
  for (std::size_t i = 0; i < kLanes; ++i) per_byte[i] *= bytes[i];
  return per_byte;
}

}  // namespace moecast
