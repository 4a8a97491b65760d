#include "sim/cost/kernel/left_out_scores.h"

#include <gtest/gtest.h>

#include <vector>

#include "sim/cost/kernel/kernel_fit.h"

namespace moecast {
namespace {

/// Two rows on each of three machines: 2, 4 and 8 ranks, of which those of 2 and 8 take longer than predicted.
std::vector<LeftOutScore> scores_of_three_machines() {
  KernelData data;
  LeftOutRows rows;
  const std::vector<int> groups{0, 0, 1, 1, 2, 2};
  const auto count = static_cast<Eigen::Index>(groups.size());
  data.log_seconds = Eigen::VectorXd::Zero(count);
  data.terms = KernelData::Terms::Zero(count, KernelLaw::kMostTerms);
  data.strata.resize(groups.size());
  data.growth_half_width = Eigen::VectorXd::Constant(count, 0.03);
  data.machine = Eigen::VectorXd{{2, 2, 4, 4, 8, 8}};
  rows.log_predicted = Eigen::VectorXd{{-0.1, -0.12, 0.05, 0.04, -0.11, -0.1}};
  rows.sigma = Eigen::VectorXd::Ones(count);
  rows.log_nearest = Eigen::VectorXd::Zero(count);
  return left_out_scores(data, rows, groups);
}

TEST(LeftOutScores, OnlyTheLargestMachineGrowsBeyondTheOthers) {
  const std::vector<LeftOutScore> scores = scores_of_three_machines();
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(scores[i].growth.high, 0) << i;
  for (std::size_t i = 4; i < 6; ++i) {
    EXPECT_DOUBLE_EQ(scores[i].growth.high, 0.03);
    EXPECT_DOUBLE_EQ(scores[i].growth.low, 0.03);
  }
}

TEST(LeftOutScores, WhatOthersErrToOneSideIsAllowedToEither) {
  const std::vector<LeftOutScore> scores = scores_of_three_machines();
  Caution caution;
  const ScoreInterval one_sided = left_out_intervals(scores, caution).without[1];
  EXPECT_GT(one_sided.low[0], scores[2].score());  // four ranks err to the other side than two and eight
  caution.symmetric = true;
  const ScoreInterval either = left_out_intervals(scores, caution).without[1];
  EXPECT_LT(either.low[0], scores[2].score());
  EXPECT_NEAR(either.high[0], one_sided.high[0], 0.01);
  EXPECT_EQ(either.high[0], -either.low[0]);
}

TEST(MachineGrowth, AddsUpTowardsSlower) {
  EXPECT_EQ(machine_growth(4, 8, 0.1).high, 0);
  const MachineGrowth growth = machine_growth(64, 4, 0.1);
  EXPECT_DOUBLE_EQ(growth.high, 0.4);
  EXPECT_DOUBLE_EQ(growth.low, 0.2);
}

}  // namespace
}  // namespace moecast
