// Which of a profile's kernels answers for a row.
#include "sim/cost/kernel/ready_kernel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moecast {
namespace {

const KernelCalibration& calibration(const std::string& name) {
  static std::map<std::string, KernelCalibration> read;
  const auto found = read.find(name);
  if (found != read.end()) return found->second;
  return read.emplace(name, read_kernel_calibration(MOECAST_SOURCE_DIR "/hwprofiles/" + name, name)).first->second;
}

KernelRowValues moe_row(double hidden, double inter, double top_k, double experts, double ep, double matrices = 3) {
  KernelRowValues row(*find_kernel_layout("moe"));
  row.set("num_tokens", 64).set("hidden_size", hidden).set("inter_size", inter).set("topk", top_k);
  row.set("num_experts", experts).set("moe_tp_size", 1).set("moe_ep_size", ep).set(kDistributionColumn, 0);
  return row.set(kMatricesColumn, matrices);
}

KernelWanted moe_of(std::string_view framework, const std::string& format) {
  return {"moe", "", "", framework, "", {format}, true};
}

TEST(ReadyKernel, AFrameworkRunsTheKernelThatItsRuleNamesOnAShapeNobodyMeasured) {
  const KernelCalibration& h200 = calibration("h200-sxm");
  const auto one = find_ready_kernels(h200, moe_of("vllm", "fp8_block"), moe_row(2560, 896, 6, 96, 1));
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(one.front()->model.key.kernel, "vllm_fp8moe_triton_tritonexperts");
  EXPECT_EQ(one.front()->pick->origin, Origin::measured);
  EXPECT_EQ(one.front()->guess(), "");
  const auto spread = find_ready_kernels(h200, moe_of("vllm", "fp8_block"), moe_row(2560, 896, 6, 96, 8));
  ASSERT_EQ(spread.size(), 1U);
  EXPECT_EQ(spread.front()->model.key.kernel, "vllm_fp8moe_flashinfer_cutlass_flashinferexperts");
}

TEST(ReadyKernel, BehindADispatchTheRanksOfTheDeploymentDecide) {
  KernelWanted wanted = moe_of("vllm", "fp8_block");
  wanted.picked_by = moe_row(2560, 896, 6, 96, 8);
  const auto found = find_ready_kernel(calibration("h200-sxm"), wanted, moe_row(2560, 896, 6, 12, 1));
  EXPECT_EQ(found->model.key.kernel, "vllm_fp8moe_flashinfer_cutlass_flashinferexperts");
}

TEST(ReadyKernel, WhatIsAssumedOfAPickIsSaid) {
  const KernelCalibration& b200 = calibration("b200-sxm");
  const auto measured = find_ready_kernel(b200, moe_of("vllm", "nvfp4"), moe_row(2048, 512, 8, 256, 1));
  EXPECT_TRUE(measured->compiled.measured());
  EXPECT_EQ(measured->guess(), "");
  const auto guessed = find_ready_kernel(b200, moe_of("vllm", "nvfp4"), moe_row(2560, 896, 6, 96, 1));
  EXPECT_THAT(guessed->model.key.kernel, testing::EndsWith("monolithic"));
  EXPECT_THAT(guessed->guess(), testing::HasSubstr("is assumed"));
}

TEST(ReadyKernel, ExpertsOfTwoMatricesHaveAKernelOfTheirOwn) {
  const KernelCalibration& h200 = calibration("h200-sxm");
  const auto gated = find_ready_kernels(h200, moe_of("trtllm", "bfloat16"), moe_row(3072, 1280, 6, 96, 2));
  const auto plain = find_ready_kernels(h200, moe_of("trtllm", "bfloat16"), moe_row(3072, 1280, 6, 96, 2, 2));
  ASSERT_EQ(gated.size(), 1U);
  ASSERT_EQ(plain.size(), 1U);
  EXPECT_EQ(gated.front()->model.key.kernel, "moe_torch_flow_cutlass");
  EXPECT_EQ(plain.front()->model.key.kernel, "moe_torch_flow_nongated");
}

TEST(ReadyKernel, OfKernelsThatTuneThemselvesTheFastestRuns) {
  const auto found =
      find_ready_kernels(calibration("b200-sxm"), moe_of("trtllm", "nvfp4"), moe_row(4096, 2048, 8, 256, 1));
  ASSERT_EQ(found.size(), 2U);
  for (const ReadyKernel& kernel : found)
    EXPECT_THAT(kernel->model.key.kernel, testing::Not(testing::HasSubstr("nongated")));
}

TEST(ReadyKernel, AKernelHandsOverWhereTheRuleChangesAlongACurve) {
  const KernelLayout& layout = *find_kernel_layout("gemm");
  KernelRowValues row(layout);
  row.set("m", 1).set("n", 1536).set("k", 4096);
  const KernelCalibration& h200 = calibration("h200-sxm");
  const auto found = find_ready_kernel(h200, {"gemm", "", "", "vllm", "", {"fp8_block"}, true}, row);
  EXPECT_EQ(found->model.key.kernel, "FlashInferFp8BlockScaledMMKernel");
  ASSERT_NE(found->next, nullptr);
  EXPECT_EQ(found->next->model.key.kernel, "DeepGemmFp8BlockScaledMMKernel");
  EXPECT_EQ(found->next->next, nullptr);
  for (const double m : {16.0, 4096.0}) {
    const ReadyKernelData& runs = m < 32 ? *found : *found->next;
    CompiledKernel::Workspace workspace;
    RankLoadCache loads;
    const KernelRowValues asked = KernelRowValues(row).set("m", m);
    const CompiledKernel compiled(runs.model, asked.span(), workspace);
    EXPECT_EQ(found->seconds(asked), std::exp(compiled.at({asked.span()}, loads).log_seconds)) << m;
  }
}

TEST(ReadyKernel, WithoutRulesWhatWasMeasuredNearestAnswers) {
  KernelCalibration bare = calibration("h200-sxm");
  bare.backends.clear();
  for (const double ranks : {1.0, 8.0}) {
    const KernelRowValues row = moe_row(4096, 2048, 8, 256, ranks);
    const auto found = find_ready_kernel(bare, moe_of("vllm", "fp8_block"), row);
    EXPECT_TRUE(found->compiled.measured()) << ranks;
    EXPECT_FALSE(found->pick.has_value());
  }
}

}  // namespace
}  // namespace moecast
