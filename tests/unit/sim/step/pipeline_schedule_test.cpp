#include "sim/step/pipeline_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace moecast {
namespace {

constexpr double kExact = 1e-12;  ///< s: sums in another order

std::vector<MicroBatchTimes> equal(std::size_t count, std::size_t stages, double stage_s, double transfer_s) {
  return std::vector<MicroBatchTimes>(
      count, {std::vector<double>(stages, stage_s), std::vector<double>(stages - 1, transfer_s)});
}

TEST(PipelineSchedule, OneStageIsItsMicroBatchesOneAfterAnother) {
  const std::vector<MicroBatchTimes> two{{{0.003}, {}}, {{0.005}, {}}};
  const PipelineTimes times = pipeline_times(two);
  EXPECT_NEAR(times.fill_drain_s, 0.008, kExact);
  EXPECT_NEAR(times.period_s, 0.008, kExact);
  EXPECT_NEAR(times.fill_drain_bubble_ratio, 0, kExact);
}

TEST(PipelineSchedule, OneMicroBatchIsTheSumOfStagesAndTransfers) {
  const std::vector<MicroBatchTimes> one{{{0.003, 0.004, 0.002}, {0.0001, 0.0002}}};
  const PipelineTimes times = pipeline_times(one);
  EXPECT_NEAR(times.fill_drain_s, 0.0093, kExact);
  EXPECT_NEAR(times.period_s, 0.0093, kExact);
  EXPECT_NEAR(times.longest_path_s, 0.0093, kExact);
  EXPECT_NEAR(times.fill_drain_bubble_ratio, 1 - 0.009 / (3 * 0.0093), kExact);
}

TEST(PipelineSchedule, EqualStagesHaveTheBubblesOfFillAndDrain) {
  // (m + p - 1) t, of which each stage computes m t; generation: max(m, p) t.
  for (const std::size_t m : {1U, 2U, 4U, 9U}) {
    for (const std::size_t p : {2U, 4U, 7U}) {
      const PipelineTimes times = pipeline_times(equal(m, p, 0.001, 0));
      const auto fill = static_cast<double>(m + p - 1);
      EXPECT_NEAR(times.fill_drain_s, 0.001 * fill, kExact);
      EXPECT_NEAR(times.fill_drain_bubble_ratio, static_cast<double>(p - 1) / fill, 1e-9);
      EXPECT_NEAR(times.period_s, 0.001 * static_cast<double>(std::max(m, p)), 1e-9);
    }
  }
}

TEST(PipelineSchedule, TwoStagesWorkedByHand) {
  // Stages 2 and 3 ms, transfer 1 ms, two micro-batches:
  // A computes 0-2, is sent 2-3, computes 3-6. B computes 3-5, waits for stage 1 until 6, is sent 6-7, computes 7-10.
  const std::vector<MicroBatchTimes> two{{{2, 3}, {1}}, {{2, 3}, {1}}};
  const PipelineTimes times = pipeline_times(two);
  EXPECT_NEAR(times.fill_drain_s, 10, kExact);
  EXPECT_NEAR(times.longest_path_s, 6, kExact);
  // Generating: the second stage receives and computes for 4 ms a micro-batch without a pause.
  EXPECT_NEAR(times.period_s, 8, 1e-9);
  EXPECT_NEAR(times.period_bubble_ratio, 1 - 10.0 / 16, 1e-9);
}

TEST(PipelineSchedule, NeverShorterThanAStageOrAPathNeverLongerThanNoOverlap) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> seconds(0.1, 3);
  for (int trial = 0; trial < 200; ++trial) {
    const std::size_t m = 1 + random() % 6;
    const std::size_t p = 1 + random() % 5;
    std::vector<MicroBatchTimes> all(m);
    std::vector<double> stage(p, 0.0);
    double serial = 0;
    double path = 0;
    for (MicroBatchTimes& one : all) {
      double mine = 0;
      for (std::size_t s = 0; s < p; ++s) {
        one.stages.push_back(seconds(random));
        if (s > 0) one.transfers.push_back(0.1 * seconds(random));
        mine += one.stages.back() + (s > 0 ? one.transfers.back() : 0);
        stage[s] += one.stages.back();
      }
      serial += mine;
      path = std::max(path, mine);
    }
    const double slowest = *std::ranges::max_element(stage);
    const PipelineTimes times = pipeline_times(all);
    EXPECT_GE(times.fill_drain_s, std::max(slowest, path) - kExact);
    EXPECT_LE(times.fill_drain_s, serial + kExact);
    EXPECT_GE(times.period_s, std::max(slowest, path) - 1e-9);
    EXPECT_LE(times.period_s, times.fill_drain_s + 1e-9);  // a pipeline that never drains is no slower
  }
}

}  // namespace
}  // namespace moecast
