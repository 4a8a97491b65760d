#include "profiler/cuda/plan.h"

#include <gtest/gtest.h>

#include <map>

namespace moecast {
namespace {

TEST(GpuPlan, CountsTheBytesOfOneCopy) {
  KernelPoint point;
  point.dtype = DType::bf16;
  point.shape.m = 9;
  point.shape.n = 100;
  point.shape.k = 30;
  EXPECT_EQ(gpu_copy_bytes(point), 100 * 30 * 2);  // weights only: 3000 elements of 2 B
  point.footprint = Bytes(4 * 6000);
  EXPECT_EQ(gpu_copies(point), 4);
  point.footprint = Bytes(0);
  EXPECT_EQ(gpu_copies(point), 1);
  point.kind = OperatorKind::fused_moe;
  point.shape = {};
  point.shape.tokens = 5;
  point.shape.experts = 4;
  point.shape.hidden = 10;
  point.shape.width = 20;
  point.shape.gated = 1;
  EXPECT_EQ(gpu_copy_bytes(point), 4 * 10 * 20 * 3 * 2);  // gate, up and down of 4 experts
}

TEST(GpuPlan, CoversEveryBackendWithRingsThatAreWholeCopies) {
  std::map<std::string, int> backends;
  for (const KernelPoint& point : gpu_points({})) {
    ++backends[point.backend + "/" + std::string(to_string(point.dtype))];
    const double copy = gpu_copy_bytes(point);
    if (point.footprint.value() > 0) {
      EXPECT_NEAR(point.footprint.value(), gpu_copies(point) * copy, 1);
    }
    EXPECT_LE(gpu_copies(point), kMostGpuCopies);
  }
  EXPECT_GT(backends["cublas/bf16"], 400);
  EXPECT_GT(backends["cublas/fp32"], 80);
  EXPECT_GT(backends["cublas-tf32/fp32"], 80);
  EXPECT_EQ(backends["cublas-loop/bf16"], backends["cublas-grouped/bf16"]);
  EXPECT_GT(backends["cuda/bf16"], 400);
  EXPECT_GT(backends["cuda/fp32"], 100);
}

TEST(GpuPlan, LeavesOutCallsAboveTheTimeLimit) {
  GpuPlanOptions options;
  options.most_call_seconds = 1e-6;  // 1 us at 5e14 FLOP/s is 5e8 FLOPs
  for (const KernelPoint& point : gpu_points(options)) {
    if (point.kind != OperatorKind::gemm || point.dtype != DType::bf16) continue;
    EXPECT_LE(2.0 * static_cast<double>(point.shape.m * point.shape.n * point.shape.k), 5e8);
  }
}

}  // namespace
}  // namespace moecast
