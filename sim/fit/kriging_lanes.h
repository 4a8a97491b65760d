#pragma once
#include <array>
#include <vector>

#include "sim/fit/kriging.h"
#include "sim/fit/lane_math.h"

namespace moecast {

/// A kriging residual in single precision, kLanes measured points at a time: what a table of its values is filled by.
/// Departs from Kriging::evaluate by less than 2e-5.
class KrigingLanes {
 public:
  static constexpr int kMostFeatures = 8;

  explicit KrigingLanes(const Kriging& kriging);
  /// @param features  as many as the residual has, unscaled. Nothing is allocated.
  [[nodiscard]] Kriging::Evaluation evaluate(const std::array<float, kMostFeatures>& features) const noexcept;

 private:
  using Lane = std::array<float, kLanes>;
  /// kLanes measured points: features over their lengths, weights times variance (0 where there is no point).
  struct Points {
    std::array<Lane, kMostFeatures> scaled;
    Lane weights;
    Lane present;  ///< 1 or 0
  };
  int features_ = 0;
  std::array<float, kMostFeatures> per_length_{};
  std::vector<Points> points_;
};

}  // namespace moecast
