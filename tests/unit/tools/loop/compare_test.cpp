#include "tools/loop/compare.h"

#include <gtest/gtest.h>

namespace moecast {
namespace {

Prediction answer(double latency_s, double low_s, double high_s, double tokens = 1) {
  Prediction prediction;
  prediction.latency = Seconds(latency_s);
  prediction.low = Seconds(low_s);
  prediction.high = Seconds(high_s);
  prediction.throughput_tokens_per_s = tokens / latency_s;
  return prediction;
}

OperatorCost cost(const char* kind, const char* name, const char* stage, double count, double latency_s) {
  return {kind, name, stage, count, Seconds(latency_s), Origin::fitted};
}

TEST(Compare, IsDecidedOnlyWhereIntervalsAreApart) {
  const Prediction first = answer(2, 1.8, 2.2);
  EXPECT_EQ(compare(first, answer(1, 0.9, 1.1)).verdict_text, "B is 2 x faster");
  EXPECT_EQ(compare(first, answer(3, 2.5, 3.5)).verdict_text, "B is 1.5 x slower");
  EXPECT_EQ(compare(first, answer(1.9, 1.7, 2.1)).ranking, Ranking::undecided);
  EXPECT_EQ(compare(first, answer(1.6, 1.5, 1.8)).ranking, Ranking::undecided) << "ends that touch overlap";
  EXPECT_EQ(compare(first, first).ranking, Ranking::equal);
}

TEST(Compare, JudgesThroughputWhereStepsMakeDifferentNumbersOfTokens) {
  // 2 s for 8 tokens, 4 s for 64: twice as long, 64 / 4 over 8 / 2 = 4 x the tokens a second.
  EXPECT_EQ(compare(answer(2, 1.8, 2.2, 8), answer(4, 3.6, 4.4, 64)).throughput_text,
            "B makes 4 x more tokens a second");
  EXPECT_EQ(compare(answer(2, 1.8, 2.2, 8), answer(1, 0.9, 1.1, 8)).throughput_text, "");
}

TEST(Compare, AnAnswerWithoutALatencySaysWhy) {
  Prediction none;
  none.status = Status::does_not_fit;
  none.reason = "needs 2 GB";
  const Comparison only_second = compare(none, answer(1, 0.9, 1.1));
  EXPECT_EQ(only_second.ranking, Ranking::only_second);
  EXPECT_EQ(only_second.verdict_text, "only B has an answer; A: needs 2 GB");
  EXPECT_TRUE(only_second.stages.empty());
  EXPECT_EQ(compare(none, none).ranking, Ranking::neither);
}

TEST(Compare, StagesSumOperatorsAndNameTheOneThatChangedMost) {
  Prediction first = answer(10, 9, 11);
  first.operators = {cost("gemm", "attention.qkv", "vllm gemm bf16", 2, 4),
                     cost("gemm", "attention.out", "physics", 2, 2), cost("experts", "experts", "vllm moe bf16", 4, 4)};
  Prediction second = answer(7, 6, 8);
  second.operators = {cost("gemm", "attention.qkv", "vllm gemm bf16", 2, 1),
                      cost("gemm", "attention.out", "physics", 2, 1), cost("experts", "experts", "vllm moe bf16", 4, 4),
                      cost("communication", "all_gather", "nccl x", 1, 1)};
  const std::vector<StageDifference> stages = compare(first, second).stages;
  ASSERT_EQ(stages.size(), 3U);
  EXPECT_EQ(stages[0].stage, "attention");
  EXPECT_DOUBLE_EQ(stages[0].first.value(), 6);
  EXPECT_DOUBLE_EQ(stages[0].second.value(), 2);
  EXPECT_DOUBLE_EQ(*stages[0].explained_ratio, 4.0 / 3);  // (2 - 6) / (7 - 10)
  EXPECT_EQ(stages[0].cause, "attention.qkv 2 s to 500 ms");
  EXPECT_EQ(stages[1].stage, "dispatch");
  EXPECT_DOUBLE_EQ(*stages[1].explained_ratio, -1.0 / 3);
  EXPECT_EQ(stages[1].cause, "only in B: all_gather");
  EXPECT_EQ(stages[2].cause, "");
}

TEST(StageOf, IsTheSameWordWhicheverPredictorNamesTheOperator) {
  EXPECT_EQ(stage_of(cost("gemm", "layers.0.attention.qkv", "attention", 1, 1)), "attention");
  EXPECT_EQ(stage_of(cost("attention", "attention.decode", "physics", 1, 1)), "attention");
  EXPECT_EQ(stage_of(cost("gemm", "router", "vllm-0.24.0 gemm linear bfloat16", 1, 1)), "router");
  EXPECT_EQ(stage_of(cost("host", "norms, rotary, gates, sampler", "vllm", 1, 1)), "norm");
  EXPECT_EQ(stage_of(cost("host", "waiting for launches", "vllm", 1, 1)), "host");
  EXPECT_EQ(stage_of(cost("communication", "reduce_scatter", "physics", 1, 1)), "combine");
}

}  // namespace
}  // namespace moecast
