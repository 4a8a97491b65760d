#pragma once
#include <array>
#include <vector>

#include "sim/cost/calibration.h"
#include "sim/fit/lane_math.h"

namespace moecast {

/// Coefficients of one StageLaw in single precision.
struct StageCoefficients {
  static constexpr int kMostWork = 5;
  /// Of the terms before the bytes, in their order; absent ones are 0.
  std::array<float, kMostWork> work{};
  /// Seconds per byte as a sum of hinges over log2 of the footprint: first + sum slope (log2 F - node)+.
  float first = 0;
  std::array<float, StageLaw::kByteNodes> slopes{};
  float half_width = 0;

  StageCoefficients() = default;
  explicit StageCoefficients(const StageCalibration& calibration);
};

/// The byte terms of kLanes stage calls at a time, of any kinds mixed.
struct StageLanes {
  using Lane = std::array<float, kLanes>;
  Lane bytes{};
  Lane footprint_bytes{};  ///< at least the bytes
  Lane first{};
  std::array<Lane, StageLaw::kByteNodes> slopes{};

  void set(std::size_t lane, const StageCoefficients& stage, float its_bytes, float its_footprint_bytes) noexcept {
    bytes[lane] = its_bytes;
    footprint_bytes[lane] = its_footprint_bytes > its_bytes ? its_footprint_bytes : its_bytes;
    first[lane] = stage.first;
    for (std::size_t node = 0; node < slopes.size(); ++node) slopes[node][lane] = stage.slopes[node];
  }
  /// Seconds that are bytes over bandwidth; lanes that were never set give 0.
  [[nodiscard]] Lane memory_seconds() const noexcept;
};

}  // namespace moecast
