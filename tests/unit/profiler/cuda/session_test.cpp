#include "profiler/cuda/session.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/unit/profiler/cuda/fake_gpu.h"

namespace moecast {
namespace {

GpuSessionOptions options_of(FakeGpu& gpu) {
  GpuSessionOptions options;
  options.clock = [&gpu] { return gpu.now; };
  return options;
}

TEST(GpuSession, WarmsUpAfterEveryFlushSoThatSamplesAreSteady) {
  FakeGpu gpu;
  const auto result = run_gpu_session(gpu, {gemm(5), gemm(70)}, options_of(gpu));
  ASSERT_EQ(result.measurements.size(), 2U);
  // 5 us and 70 us a call; a cold replay would be ten times as long.
  EXPECT_NEAR(result.measurements[0].latency.value(), 5e-6, 1e-12);
  EXPECT_NEAR(result.measurements[1].high.value(), 70e-6, 1e-12);
  EXPECT_EQ(gpu.flushes, 2 * 12);
  EXPECT_EQ(result.measurements[0].samples, 12 * 3);
  EXPECT_EQ(result.measurements[0].round_s.size(), 12U);
}

TEST(GpuSession, UsesEveryCopyEquallyOften) {
  FakeGpu gpu;
  run_gpu_session(gpu, {gemm(7, "cublas", 1e9)}, options_of(gpu));
  for (const auto& record : gpu.recorded) EXPECT_EQ(record.calls % 3, 0) << record.calls;
  // 1 ms / 7 us = 143 calls, the nearest whole number of rings of 3 is 48.
  EXPECT_EQ(gpu.recorded.back().calls, 144);
}

TEST(GpuSession, ShufflesTheOrderOfEveryRound) {
  FakeGpu gpu;
  std::vector<KernelPoint> points;
  for (int m = 1; m <= 8; ++m) points.push_back(gemm(2000 * m));
  run_gpu_session(gpu, points, options_of(gpu));
  std::set<std::vector<std::int64_t>> orders;
  const std::size_t probes = points.size();  // the first round records every point twice
  for (std::size_t round = 1; round < 12; ++round) {
    std::vector<std::int64_t> order;
    for (std::size_t i = 0; i < points.size(); ++i) {
      order.push_back(gpu.recorded[probes + round * points.size() + i].point.shape.m);
    }
    orders.insert(order);
  }
  EXPECT_GT(orders.size(), 8U);
}

TEST(GpuSession, StopsAtTheBudgetAndKeepsWhatItHas) {
  FakeGpu gpu;
  GpuSessionOptions options = options_of(gpu);
  options.budget = Seconds(0.02);
  const auto result = run_gpu_session(gpu, {gemm(1000), gemm(1001), gemm(1002)}, options);
  EXPECT_LT(result.rounds_finished, 12);
  EXPECT_FALSE(result.measurements.empty());
  EXPECT_LT(gpu.now, 0.05);
}

TEST(GpuSession, LeavesOutWhatTheDeviceRefusesAndSaysWhy) {
  FakeGpu gpu;
  const auto result =
      run_gpu_session(gpu, {gemm(1), gemm(2, "missing"), gemm(3, "missing"), gemm(4, "broken")}, options_of(gpu));
  EXPECT_EQ(result.measurements.size(), 1U);
  EXPECT_EQ(result.skipped, (std::vector<std::string>{"broken gemm: refused by the driver (1)",
                                                      "missing gemm: the library is not there (2)"}));
}

TEST(GpuSession, WritesCheckpointsAndStopsWhenAsked) {
  FakeGpu gpu;
  std::atomic<bool> stop{false};
  int checkpoints = 0;
  GpuSessionOptions options = options_of(gpu);
  options.interrupted = &stop;
  options.checkpoint_every = Seconds(0.01);
  options.checkpoint = [&](const std::vector<Measurement>& measured) {
    EXPECT_FALSE(measured.empty());
    if (++checkpoints == 2) stop = true;
  };
  const auto result = run_gpu_session(gpu, {gemm(1000), gemm(2000)}, options);
  EXPECT_EQ(checkpoints, 2);
  EXPECT_TRUE(result.interrupted);
}

}  // namespace
}  // namespace moecast
