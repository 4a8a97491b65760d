#include <gtest/gtest.h>

#include <vector>

#include "sim/step/service_model.h"

namespace moecast {
namespace {

constexpr double kStart = 1e-4;
constexpr double kRow = 1e-6;
constexpr double kSend = 2e-4;

/// Two stages of ten layers each: a step takes 0.1 ms and 1 us a row a layer. One layer of the second is `slower`.
StepPipeline two_stages(double slower, int dp = 1) {
  Deployment deployment;
  deployment.pp = 2;
  deployment.dp = dp;
  DeviceLimits device;
  device.bandwidth = 1e12;
  device.peak_bf16 = 1e15;
  StepPipeline pipeline;
  for (int stage = 0; stage < 2; ++stage) {
    StepOperators operators;
    operators.layers = operators.moe_layers = 10;
    operators.hidden = 1000;
    operators.operators.push_back(
        {"made up", "made up", StepGroup::gemm, 10, [](const StepShape& s) { return kStart + kRow * s.rows; }});
    if (stage == 1) {
      operators.operators.push_back({"slow", "made up", StepGroup::gemm, 1, [=](const StepShape&) { return slower; }});
    }
    pipeline.stages.emplace_back(operators, EngineSpec{}, deployment, device);
  }
  pipeline.links.push_back({"made up", 1, [](double) { return kSend; }});
  return pipeline;
}

double stage_s(double rows) { return 10 * (kStart + kRow * rows); }

TEST(ServicePipeline, ATokenPassesEveryStageWithItsMicroBatch) {
  // Eight requests in two micro-batches of four, two equal stages that never wait: 2 (t(4) + what the link holds up).
  const ServiceTerms terms = service_terms(two_stages(0), {1000, 100, 8});
  EXPECT_NEAR(terms.decode_s, 2 * (stage_s(4) + kSend), 1e-12);
  EXPECT_EQ(terms.layers, 20);
  EXPECT_EQ(terms.moe_layers, 20);
  EXPECT_EQ(terms.stages, 2);
  EXPECT_EQ(terms.requests, 8);
  // A prompt passes both stages, and keeps the others from the slowest only.
  EXPECT_NEAR(terms.prefill_s, 2 * stage_s(1000) + kSend, 1e-12);
  EXPECT_NEAR(*terms.stall_s, stage_s(1000), 1e-12);
}

TEST(ServicePipeline, OneRequestIsNeverInTwoPlaces) {
  const ServiceTerms terms = service_terms(two_stages(0), {1000, 100, 1});
  EXPECT_NEAR(terms.decode_s, 2 * stage_s(1) + kSend, 1e-12);
}

TEST(ServicePipeline, TheSlowestStageSetsThePace) {
  // The second stage takes 5 ms more: two micro-batches wait for it one after the other.
  const ServiceTerms terms = service_terms(two_stages(5e-3), {1000, 100, 8});
  EXPECT_NEAR(terms.decode_s, 2 * (stage_s(4) + 5e-3 + kSend), 1e-12);
  EXPECT_NEAR(*terms.stall_s, stage_s(1000) + 5e-3, 1e-12);
}

TEST(ServicePipeline, LongPromptsComeInChunks) {
  // 20,000 tokens: two chunks of 8,192, and what is left.
  const ServiceTerms terms = service_terms(two_stages(0), {20'000, 100, 1});
  EXPECT_NEAR(terms.prefill_s, 2 * (2 * stage_s(8192) + kSend) + 2 * stage_s(20'000 - 2 * 8192) + kSend, 1e-12);
}

TEST(ServicePipeline, EachStageOfATokenIsAStepOfTheEngine) {
  EngineService law{1, 1e-5, 1e-3, 1, 1, 1e-3};
  ServiceTerms terms{0.010, 0.100, 10, 10, 1, 100};
  const double one = service_times(terms, law).tpot_s;
  terms.stages = 2;
  EXPECT_NEAR(service_times(terms, law).tpot_s, one + 1e-3, 1e-12);
  terms.requests = 11;
  const ServiceTimes whole = service_times(terms, law);
  terms.stall_s = 0.05;
  const ServiceTimes half = service_times(terms, law);
  EXPECT_NEAR(half.tpot_s, one + 1e-3 + 10 / (half.ttft_s + 99 * half.tpot_s) * half.tpot_s * 0.05, 1e-9);
  EXPECT_LT(half.tpot_s, whole.tpot_s);
  EXPECT_NEAR(prefill_share(terms, 0.02), 11 * 0.05 / (100 * 0.02), 1e-12);
}

TEST(ServicePipeline, OneStageIsTheStepModel) {
  StepPipeline one = two_stages(0);
  one.stages.pop_back();
  one.links.clear();
  const ServiceLoad load{3000, 100, 16};
  const ServiceTerms a = service_terms(one, load);
  const ServiceTerms b = service_terms(one.front(), load);
  EXPECT_EQ(a.decode_s, b.decode_s);
  EXPECT_EQ(a.prefill_s, b.prefill_s);
  EXPECT_EQ(a.stall_s, std::nullopt);
  EXPECT_EQ(a.stages, 1);
}

}  // namespace
}  // namespace moecast
