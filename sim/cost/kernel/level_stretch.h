#pragma once
#include <vector>

#include "sim/cost/kernel/score_interval.h"

namespace moecast {

/// A left-out row beside an interval that has not seen its group.
struct BoundedRow {
  double times_bound = 0;  ///< |score| over the bound on its side: at most 1 inside
  std::array<std::uint8_t, kIntervalFactors> levels{};
  int group = 0;
};

/// Ratios by which the levels of each factor stretch an interval, so that the share `coverage` of the rows of every
/// level lies inside (narrow experts err more than wide ones, and one interval for both would hold too few of the one
/// and too many of the other). Factors multiply and are fitted in turn. Levels of few rows or groups keep 1.
ScoreInterval::Stretch level_stretch(const std::vector<BoundedRow>& rows, double coverage);

}  // namespace moecast
