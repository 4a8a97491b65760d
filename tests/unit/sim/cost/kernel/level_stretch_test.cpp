#include "sim/cost/kernel/level_stretch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

namespace moecast {
namespace {

constexpr double kCoverage = 0.9;
/// Levels are as wide as most groups ask for, which is a little more than what all rows do.
constexpr double kOfGroups = 0.012;

/// Rows of ten groups that err as the levels of two factors say, beside a bound that holds 90 % of rows of level 0.
std::vector<BoundedRow> rows_of(const std::array<double, 3>& by_width, const std::array<double, 2>& by_ranks) {
  std::mt19937_64 generator(7);
  std::exponential_distribution<double> size(-std::log(1 - kCoverage));  // 90 % quantile 1
  std::vector<BoundedRow> rows;
  for (int i = 0; i < 60'000; ++i) {
    BoundedRow row;
    row.levels[0] = static_cast<std::uint8_t>(generator() % by_width.size());
    row.levels[1] = static_cast<std::uint8_t>(generator() % by_ranks.size());
    row.times_bound = size(generator) * by_width[row.levels[0]] * by_ranks[row.levels[1]];
    row.group = i % 10;
    rows.push_back(row);
  }
  return rows;
}

double share_inside(const std::vector<BoundedRow>& rows, const ScoreInterval& interval, std::size_t factor,
                    std::uint8_t level) {
  double all = 0;
  double inside = 0;
  for (const BoundedRow& row : rows) {
    if (row.levels[factor] != level) continue;
    all += 1;
    inside += row.times_bound <= interval.stretch_of({0, row.levels}) ? 1 : 0;
  }
  return inside / all;
}

TEST(LevelStretch, EveryLevelHoldsItsShare) {
  const std::vector<BoundedRow> rows = rows_of({1.0, 2.2, 0.8}, {1.0, 1.3});
  ScoreInterval interval;
  EXPECT_LT(share_inside(rows, interval, 0, 1), 0.75);
  interval.stretch = level_stretch(rows, kCoverage);
  // Of groups that a ratio has not seen 90 %: of those that it has seen a little more.
  for (const auto& [factor, levels] : {std::pair<std::size_t, std::uint8_t>{0, 3}, {1, 2}}) {
    for (std::uint8_t level = 0; level < levels; ++level) {
      EXPECT_GT(share_inside(rows, interval, factor, level), 0.9 - kOfGroups);
      EXPECT_LT(share_inside(rows, interval, factor, level), 0.9 + 2 * kOfGroups);
    }
  }
  EXPECT_NEAR(interval.stretch[0][1] / interval.stretch[0][0], 2.2, 0.1);
  EXPECT_NEAR(interval.stretch[1][1] / interval.stretch[1][0], 1.3, 0.05);
  EXPECT_EQ(interval.stretch[2], ScoreInterval::unstretched()[2]);  // one level only
}

TEST(LevelStretch, LevelsOfFewGroupsStayAsTheyAre) {
  std::vector<BoundedRow> rows = rows_of({1.0, 3.0, 1.0}, {1.0, 1.0});
  std::erase_if(rows, [](const BoundedRow& row) { return row.levels[0] == 1 && row.group > 2; });
  const ScoreInterval::Stretch stretch = level_stretch(rows, kCoverage);
  EXPECT_EQ(stretch[0][1], 1);
  EXPECT_NE(stretch[0][0], 1);
}

TEST(LevelStretch, NothingFromNothing) { EXPECT_EQ(level_stretch({}, kCoverage), ScoreInterval::unstretched()); }

}  // namespace
}  // namespace moecast
