#include "models/routing/capacity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/routing/load.h"

namespace moecast {
namespace {

TEST(CapacitySlots, BothReadingsAndBothRoundings_A8_C13) {
  CapacitySpec c;
  EXPECT_FALSE(capacity_slots(c, 100, 2, 8).has_value());
  c.eval_factor = 1.25;
  EXPECT_EQ(capacity_slots(c, 100, 2, 8), 32);  // 1.25 * 2 * 100 / 8 = 31.25
  c.rounding = CapacityRounding::floor;
  EXPECT_EQ(capacity_slots(c, 100, 2, 8), 31);
  c.factor_of_top_k = false;
  EXPECT_EQ(capacity_slots(c, 100, 2, 8), 15);  // 1.25 * 100 / 8 = 15.6
  c.minimum = 20;
  EXPECT_EQ(capacity_slots(c, 100, 2, 8), 20);
  c.absolute = 7;
  c.minimum = 0;
  EXPECT_EQ(capacity_slots(c, 100, 2, 8), 7);
  c.absolute = 700;
  EXPECT_EQ(capacity_slots(c, 100, 2, 8), 100) << "a token comes to an expert once";
}

TEST(CapacitySlots, CeilingAndIntegerPartForAllSmallCases_A8) {
  for (int tokens = 1; tokens <= 40; ++tokens) {
    for (int experts = 1; experts <= 8; ++experts) {
      for (int k = 1; k <= experts; ++k) {
        for (const int quarters : {1, 2, 4, 5, 8, 40}) {
          CapacitySpec c;
          c.eval_factor = quarters / 4.0;
          // Whole numbers: quarters T k / (4 E), rounded up; quarters T / (4 E), rounded down.
          const int up = (quarters * tokens * k + 4 * experts - 1) / (4 * experts);
          EXPECT_EQ(capacity_slots(c, tokens, k, experts), std::min(tokens, up));
          c.rounding = CapacityRounding::floor;
          c.factor_of_top_k = false;
          EXPECT_EQ(capacity_slots(c, tokens, k, experts), std::min(tokens, quarters * tokens / (4 * experts)));
        }
      }
    }
  }
}

double sum(const std::vector<ExpertRows>& kinds) {
  double rows = 0;
  for (const ExpertRows& kind : kinds) {
    for (const RowGroup& group : kind.groups) rows += group.rows * group.experts;
  }
  return rows;
}

TEST(LimitRows, DropsWhatIsTooMuch_A8) {
  std::vector<ExpertRows> kinds{{{{10, 1}, {4, 2}}, 4}};
  limit_rows(kinds, 6, false);
  EXPECT_DOUBLE_EQ(sum(kinds), 6 + 8);
  limit_rows(kinds, 0, false);
  EXPECT_TRUE(kinds[0].groups.empty()) << "no slot, no row";
}

TEST(LimitRows, NextBestKeepsAllRowsWhereThereIsRoom_A8) {
  std::vector<ExpertRows> kinds{{{{10, 1}, {4, 2}}, 3}, {{{2, 1}}, 2}};
  limit_rows(kinds, 6, true);
  EXPECT_NEAR(sum(kinds), 20, 1e-9);
  for (const ExpertRows& kind : kinds) {
    for (const RowGroup& group : kind.groups) EXPECT_LE(group.rows, 6 + 1e-9);
  }
}

TEST(LimitRows, NextBestFillsIdleExpertsAndDropsTheRest_A8) {
  std::vector<ExpertRows> kinds{{{{16, 1}}, 4}};
  limit_rows(kinds, 5, true);  // 11 left over, three idle experts
  EXPECT_NEAR(sum(kinds), 16, 1e-9);
  kinds = {{{{40, 1}}, 4}};
  limit_rows(kinds, 5, true);
  EXPECT_NEAR(sum(kinds), 20, 1e-9) << "4 experts of 5 slots";
}

}  // namespace
}  // namespace moecast
