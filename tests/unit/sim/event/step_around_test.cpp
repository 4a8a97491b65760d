#include "sim/event/step_around.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "models/core/error.h"
#include "sim/step/stage_answer.h"
#include "tests/support/h200_machine.h"

namespace moecast {
namespace {

Architecture deepseek() { return zoo_model("deepseek-v3"); }

Deployment wide(int ranks) {
  Deployment d;
  d.ep = d.dp = ranks;
  d.backend = "sglang";
  return d;
}

Workload decode(std::int64_t batch) {
  Workload w;
  w.batch = batch;
  w.context = 4000;
  return w;
}

EpOptions few() {
  EpOptions options = samples_of(5);
  options.deepep_between_nodes = true;  // as SGLang
  return options;
}

TEST(StepAround, IsTheStepWithoutItsExperts) {
  const StepAround around = step_around(h200_analytic(), deepseek(), wide(32), decode(2048), 1, 58);
  EXPECT_EQ(around.missing, "");
  // Attention of 61 layers, three dense layers and the head: everything but the MoE blocks is counted once.
  const double listed = std::accumulate(around.operators.begin(), around.operators.end(), 0.0,
                                        [](double sum, const OperatorCost& op) { return sum + op.latency.value(); });
  EXPECT_NEAR(58 * around.before_s + around.outside_s + around.prepared_s, listed, 1e-9 * listed);
  for (const OperatorCost& op : around.operators) EXPECT_THAT(op.name, testing::Not(testing::HasSubstr("experts")));
  const Prediction whole = h200_analytic().predict(deepseek(), wide(32), decode(2048));
  const double experts =
      std::accumulate(whole.operators.begin(), whole.operators.end(), 0.0, [](double sum, const OperatorCost& op) {
        const bool routed =
            op.kind == "experts" || op.kind == "shared" || op.kind == "communication" || op.name == "router";
        return sum + (routed ? op.latency.value() : 0);
      });
  EXPECT_NEAR(listed + experts, whole.latency->value(), 0.01 * whole.latency->value());
}

TEST(StepAround, AWholeStepIsItsLayersAndWhatLiesAround) {
  const Prediction layers = predict_ep(h200_machine(), h200_rails(), deepseek(), wide(32), decode(2048), few());
  const Prediction step =
      predict_ep(h200_machine(), h200_rails(), deepseek(), wide(32), decode(2048), few(), &h200_analytic());
  const StepAround around = step_around(h200_analytic(), deepseek(), wide(32), decode(2048), 1, 58);
  EXPECT_NEAR(step.latency->value(),
              layers.latency->value() + 58 * around.before_s + around.outside_s + around.prepared_s,
              1e-6 * step.latency->value());
  EXPECT_THAT(layers.warnings, testing::Contains(testing::HasSubstr("head are not in it")));
  EXPECT_THAT(step.warnings, testing::Not(testing::Contains(testing::HasSubstr("head are not in it"))));
  const double listed = std::accumulate(step.operators.begin(), step.operators.end(), 0.0,
                                        [](double sum, const OperatorCost& op) { return sum + op.latency.value(); });
  // Shared experts run beside the dispatch.
  EXPECT_GE(listed, step.latency->value());
  EXPECT_LE(listed, 1.05 * step.latency->value());
  EXPECT_LT(*step.low, *step.latency);
  EXPECT_GT(*step.high, *step.latency);
}

TEST(StepAround, BothEnginesAgreeOnWideExpertParallelism) {
  // The same kernels, placement, skew and overlap; events know besides that batches wait for each other.
  Workload w = decode(8192);
  w.load.kind = LoadKind::log_normal;
  w.load.parameter = 1;
  for (const int copies : {0, 64}) {
    Deployment d = wide(64);
    d.redundant_experts = copies;
    EpOptions options = few();
    const Prediction events =
        predict_ep_overlapped(h200_machine(), h200_rails(), deepseek(), d, w, options, &h200_analytic());
    const Prediction closed = h200_analytic().predict(deepseek(), d, w);
    EXPECT_EQ(options.batches, 2);
    EXPECT_NEAR(events.latency->value() / closed.latency->value(), 1.1, 0.15) << copies;
  }
  // Copies are placed by popularity: they take the wait for the fullest rank away, in either engine.
  const auto seconds = [&](int copies) {
    Deployment d = wide(64);
    d.redundant_experts = copies;
    return predict_ep(h200_machine(), h200_rails(), deepseek(), d, w, few(), &h200_analytic()).latency->value();
  };
  EXPECT_LT(seconds(64), 0.7 * seconds(0));
  Deployment d = wide(64);
  d.redundant_experts = 32;  // of 64 ranks
  EXPECT_THROW(predict_ep(h200_machine(), h200_rails(), deepseek(), d, w, few()), InputError);
  Deployment single;
  single.redundant_experts = 256;  // nobody holds an expert twice
  EXPECT_THROW(predict_ep(h200_machine(), h200_rails(), deepseek(), single, decode(1), few()), InputError);
  EpOptions nccl = few();  // nothing overlaps NCCL's kernels
  nccl.dispatch = DispatchMethod::nccl;
  predict_ep_overlapped(h200_machine(), h200_rails(), deepseek(), wide(64), w, nccl, &h200_analytic());
  EXPECT_EQ(nccl.batches, 1);
  EpOptions in_turn = few();
  in_turn.placement = PlacementKind::round_robin;
  d.redundant_experts = 64;
  EXPECT_THROW(predict_ep(h200_machine(), h200_rails(), deepseek(), d, w, in_turn), InputError);
}

TEST(StepAround, AttentionOfOneBatchHidesTheExchangeOfTheOther) {
  EpOptions options = few();
  options.batches = 2;
  const StepAround around = step_around(h200_analytic(), deepseek(), wide(32), decode(8192), 2, 58);
  const Prediction step =
      predict_ep(h200_machine(), h200_rails(), deepseek(), wide(32), decode(8192), options, &h200_analytic());
  const Prediction layers = predict_ep(h200_machine(), h200_rails(), deepseek(), wide(32), decode(8192), options);
  const double apart = layers.latency->value() + 2 * 58 * around.before_s + around.outside_s;
  EXPECT_LT(step.latency->value(), 0.95 * apart);
  EXPECT_GT(step.latency->value(), 2 * 58 * around.before_s + around.outside_s);
}

TEST(StepAround, HalvesOfPromptsHaveAllPairsOfQueryAndKey) {
  const auto attention = [](const Workload& w, int dp, int batches) {
    double sum = 0;
    for (const OperatorCost& op : step_around(h200_analytic(), deepseek(), wide(dp), w, batches, 58).operators) {
      if (op.name == "attention.prefill") sum += op.latency.value();
    }
    return sum;
  };
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = 8192;
  w.batch = 16;  // one prompt a rank: each half takes a half of it, and the second sees the first
  EXPECT_NEAR(attention(w, 16, 2) / attention(w, 16, 1), 1, 0.2);
  w.batch = 64;  // four prompts a rank: two in each half
  EXPECT_NEAR(attention(w, 16, 2) / attention(w, 16, 1), 1, 0.1);
}

TEST(StepAround, ASequenceThatGeneratesIsInOneOfTheBatches) {
  const auto layers_s = [](std::int64_t batch, int batches) {
    return batches * step_around(h200_analytic(), deepseek(), wide(16), decode(batch), batches, 58).before_s;
  };
  EXPECT_NEAR(layers_s(16, 2) / layers_s(16, 1), 1, 1e-9);
  EXPECT_GT(layers_s(4096, 2), layers_s(4096, 1)) << "both halves read all weights";
}

TEST(StepAround, ASlowRankIsSlowAllTheStep) {
  EpOptions options = few();
  const auto latency = [&] {
    return predict_ep(h200_machine(), h200_rails(), deepseek(), wide(32), decode(2048), options, &h200_analytic());
  };
  const Prediction usual = latency();
  options.slow_ranks = {{3, 2.0}};
  const Prediction slow = latency();
  const StepAround around = step_around(h200_analytic(), deepseek(), wide(32), decode(2048), 1, 58);
  EXPECT_GT(slow.latency->value() - usual.latency->value(), 58 * around.before_s + around.outside_s);
  EXPECT_GT(*slow.distribution->expert_balance, 0.4) << "slow attention is not slow experts";
}

TEST(StepAround, AHostThatLaunchesKernelsOneByOneHidesFullRanks) {
  // Few tokens: the host needs longer to launch all kernels than they run; what the fullest rank takes beyond the mean
  // hides behind it.
  Deployment eager = wide(8);
  eager.eager = true;
  Workload skewed = decode(16);
  skewed.load.kind = LoadKind::zipf;
  skewed.load.parameter = 1;
  const StepAround around = step_around(h200_analytic(), deepseek(), eager, skewed, 1, 58);
  ASSERT_GT(around.launched_s, 0);
  const Prediction step = predict_ep(h200_machine(), h200_rails(), deepseek(), eager, skewed, few(), &h200_analytic());
  const Prediction replayed =
      predict_ep(h200_machine(), h200_rails(), deepseek(), wide(8), skewed, few(), &h200_analytic());
  const Prediction closed = h200_analytic().predict(deepseek(), eager, skewed);
  EXPECT_NEAR(step.latency->value(), around.prepared_s + around.launched_s, 1e-9 * step.latency->value());
  EXPECT_NEAR(step.latency->value(), closed.latency->value(), 1e-9 * step.latency->value());
  EXPECT_GT(step.latency->value(), replayed.latency->value());
  EXPECT_EQ(step.bottleneck, "launch");
  const auto waiting = std::ranges::find(step.operators, std::string(kLaunchWait), &OperatorCost::name);
  ASSERT_NE(waiting, step.operators.end());
  EXPECT_NEAR(waiting->latency.value(), step.latency->value() - around.prepared_s - replayed.latency->value(),
              0.05 * step.latency->value());
  // Kernels that take longer than their launches hide the host instead.
  const Prediction full =
      predict_ep(h200_machine(), h200_rails(), deepseek(), eager, decode(8192), few(), &h200_analytic());
  EXPECT_THAT(full.operators, testing::Not(testing::Contains(testing::Field(&OperatorCost::name, kLaunchWait))));
}

TEST(StepAround, SaysWhatItCannotSay) {
  Architecture encoded = deepseek();
  encoded.encoder = encoded.decoder;
  EXPECT_NE(step_around(h200_analytic(), encoded, wide(32), decode(64), 1, 58).missing, "");
  Deployment divided = wide(32);
  divided.tp = 3;
  EXPECT_NE(step_around(h200_analytic(), deepseek(), divided, decode(64), 1, 58).missing, "");
}

/// Nothing overlaps and nothing is skewed between ranks: drawn routings make the closed form's step. What is left is
/// that the law of few tokens is not a straight line over the experts that they touch, and the fullest of few ranks.
TEST(StepAround, EventsAreTheClosedFormInsideAndBetweenNodes) {
  struct Case {
    const char* model;
    int tp, dp;
    std::int64_t batch;
    double tolerance;
    const char* backend = "vllm";
  };
  for (const Case& c :
       {Case{"qwen3-30b-a3b", 1, 1, 1, 1e-3}, Case{"qwen3-30b-a3b", 1, 1, 64, 3e-3},
        Case{"qwen3-30b-a3b", 1, 1, 512, 1e-3}, Case{"qwen3-30b-a3b", 1, 4, 64, 5e-3},
        Case{"qwen3-30b-a3b", 4, 1, 64, 5e-3}, Case{"qwen3-30b-a3b", 4, 1, 512, 5e-3},
        Case{"deepseek-v3", 8, 1, 64, 0.01}, Case{"deepseek-v3", 1, 8, 256, 0.01},
        Case{"qwen3-30b-a3b", 1, 16, 64, 5e-3}, Case{"qwen3-30b-a3b", 16, 1, 64, 5e-3},
        Case{"qwen3-30b-a3b", 4, 4, 64, 5e-3}, Case{"qwen3-30b-a3b", 4, 4, 64, 5e-3, "sglang"},
        Case{"qwen3-30b-a3b", 8, 2, 64, 5e-3, "sglang"}, Case{"deepseek-v3", 4, 4, 256, 0.01, "trtllm"},
        Case{"deepseek-v3", 2, 8, 256, 0.01, "trtllm"}, Case{"deepseek-v3", 2, 4, 64, 0.01, "sglang"}}) {
    Deployment d;
    d.tp = c.tp;
    d.dp = c.dp;
    d.ep = c.tp * c.dp;
    d.backend = c.backend;
    Workload w;
    w.batch = c.batch;
    w.context = 1000;
    w.load.kind = LoadKind::log_normal;
    w.load.parameter = 1;
    const Architecture model = zoo_model(c.model);
    const Prediction closed = h200_analytic().predict(model, d, w);
    EpOptions options = samples_of(50);
    options.split_rows = d.backend == "vllm";
    const Prediction drawn = predict_ep(h200_machine(), h200_rails(), model, d, w, options, &h200_analytic());
    ASSERT_TRUE(closed.latency && drawn.latency) << c.model << closed.reason << drawn.reason;
    RecordProperty(
        std::string(c.model) + std::to_string(c.tp) + "_" + std::to_string(c.dp) + "_" + std::to_string(c.batch),
        std::to_string(*drawn.latency / *closed.latency));
    EXPECT_NEAR(*drawn.latency / *closed.latency, 1, c.tolerance)
        << c.backend << " " << c.model << " tp" << c.tp << " dp" << c.dp << " batch " << c.batch;
  }
}

TEST(StepAround, BehindDeepEpTheRankWithMostRowsDecidesInBothEngines) {
  for (const std::int64_t prompts : {8, 32}) {  // of 32 ranks
    Workload w;
    w.phase = Phase::prefill;
    w.batch = prompts;
    w.prompt = 2048;
    const Prediction closed = h200_analytic().predict(deepseek(), wide(32), w);
    const Prediction drawn = predict_ep(h200_machine(), h200_rails(), deepseek(), wide(32), w, few(), &h200_analytic());
    ASSERT_TRUE(closed.latency && drawn.latency) << closed.reason << drawn.reason;
    EXPECT_NEAR(*drawn.latency / *closed.latency, 1, 0.12) << prompts;
  }
}

TEST(StepAround, PromptsThatDoNotDivideAreTheSameToBothEngines) {
  Deployment d;
  d.dp = d.ep = 8;
  d.backend = "vllm";
  for (const std::int64_t prompts : {1, 8, 9}) {
    Workload w;
    w.phase = Phase::prefill;
    w.batch = prompts;
    w.prompt = 2048;
    const Architecture model = zoo_model("qwen3-30b-a3b");
    const Prediction closed = h200_analytic().predict(model, d, w);
    const Prediction drawn = predict_ep(h200_machine(), h200_rails(), model, d, w, samples_of(8), &h200_analytic());
    EXPECT_NEAR(*drawn.latency / *closed.latency, 1, 0.03) << prompts;
    EXPECT_THAT(drawn.warnings, testing::Contains(testing::HasSubstr("host of vllm"))) << "of the engine it asked";
  }
}

}  // namespace
}  // namespace moecast
