#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "sim/fit/kriging.h"
#include "sim/fit/kriging_lanes.h"
#include "sim/fit/lane_math.h"

namespace moecast {

/// A kriging residual that answers in nanoseconds: its values on a grid over the features, linear between them.
///
/// Values are computed when a query first needs them, and kept. Between nodes a query is a mean of the `features + 1`
/// corners of a simplex (the cell cut along its diagonal), in place of all 2^features corners. Nodes lie so
/// near one another that a line between two departs from the residual by at most 0.1 % of a time at nine of ten
/// measured points; queries outside the grid get the exact value. Safe to share between threads.
class KrigingTable {
 public:
  static constexpr int kMostFeatures = KrigingLanes::kMostFeatures;
  /// Range of one feature. `steps` 0: chosen from the residual; else the range is cut into this many equal steps.
  struct Axis {
    float low = 0;
    float high = 1;
    int steps = 0;
  };

  /// @param axes  one for each feature. @throws std::bad_alloc when the grid does not fit in memory.
  KrigingTable(const Kriging& kriging, const std::vector<Axis>& axes);

  /// Features of kLanes queries: [feature][lane].
  using Lanes = std::array<std::array<float, kLanes>, kMostFeatures>;
  struct Answer {
    std::array<float, kLanes> mean;
    std::array<float, kLanes> nearness;
  };
  /// @param count  lanes in use, from the first; the others are left alone. Nothing is allocated.
  void evaluate(const Lanes& features, int count, Answer& answer) const noexcept;

  [[nodiscard]] std::size_t nodes() const { return size_; }
  /// Nodes that queries have needed so far.
  [[nodiscard]] std::size_t filled() const;

 private:
  struct Grid {
    float low = 0;
    float last = 0;  ///< the highest node
    float per_step = 1;
    float step = 1;
    std::uint32_t stride = 1;
    int cells = 1;
  };
  struct Corners;
  template <int kUsed>  ///< lanes, from the first
  [[nodiscard]] Corners corners(const Lanes& features) const noexcept;
  [[nodiscard]] float interpolate(const Corners& corners, int lane, float& nearness) const noexcept;
  void prefetch(const Corners& corners, int count) const noexcept;
  [[nodiscard]] std::uint32_t node(std::uint32_t index) const noexcept;
  [[nodiscard]] std::uint32_t compute(std::uint32_t index) const noexcept;

  Kriging kriging_;
  KrigingLanes lanes_;
  int features_ = 0;
  std::array<Grid, kMostFeatures> grids_;
  std::size_t size_ = 0;
  struct Free {
    void operator()(std::uint32_t* memory) const;
  };
  std::unique_ptr<std::uint32_t[], Free> values_;  ///< 0 = not yet computed; only touched pages take memory
};

}  // namespace moecast
