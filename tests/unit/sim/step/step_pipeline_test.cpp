#include "sim/step/step_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;
/// Sums of the same seconds in another order.
constexpr double kSameSum = 1e-9;

const Predictor& h200() {
  static const auto predictor = load_gpu_predictor(kRoot + "/hwprofiles/h200-sxm", kRoot + "/models/plan/engines");
  return *predictor;
}

Architecture model(const std::string& name) { return load_architecture(kRoot + "/models/zoo/" + name + ".json"); }

Deployment stages(int pp, std::optional<int> micro_batches = std::nullopt, int tp = 1) {
  Deployment d;
  d.tp = tp;
  d.pp = pp;
  d.micro_batches = micro_batches;
  d.backend = "vllm";
  return d;
}

Workload decode(std::int64_t batch) {
  Workload w;
  w.batch = batch;
  w.context = 2047;
  w.load.kind = LoadKind::log_normal;
  w.load.parameter = 1;
  return w;
}

Workload prefill(std::int64_t batch, std::int64_t prompt) {
  Workload w = decode(batch);
  w.phase = Phase::prefill;
  w.context = 0;
  w.prompt = prompt;
  return w;
}

double seconds(const Prediction& p) { return p.latency.value().value(); }

double operator_sum(const Prediction& p) {
  double sum = 0;
  for (const OperatorCost& cost : p.operators) sum += cost.latency.value();
  return sum;
}

TEST(StepPipeline, BatchesAreDealtInWholeSequences) {
  const auto whole = [](const std::vector<MicroBatch>& kinds) {
    std::int64_t decodes = 0;
    std::int64_t prompts = 0;
    std::size_t count = 0;
    for (const MicroBatch& kind : kinds) {
      const auto times = static_cast<std::int64_t>(kind.places.size());
      decodes += kind.decodes * times;
      prompts += kind.prompts * times;
      count += kind.places.size();
      EXPECT_GT(kind.decodes + kind.prompts, 0);
    }
    return std::tuple(decodes, prompts, count);
  };
  EXPECT_EQ(whole(split_batch(32, 0, 4)), std::tuple(32, 0, 4U));
  EXPECT_EQ(split_batch(32, 0, 4).size(), 1U);  // all alike
  EXPECT_EQ(whole(split_batch(5, 0, 4)), std::tuple(5, 0, 4U));
  EXPECT_EQ(whole(split_batch(3, 3, 4)), std::tuple(3, 3, 4U));
  EXPECT_EQ(whole(split_batch(1, 0, 4)), std::tuple(1, 0, 1U));
  EXPECT_EQ(whole(split_batch(7, 2, 4)), std::tuple(7, 2, 4U));
}

TEST(StepPipeline, OneMicroBatchIsTheSumOfStagesAndTransfers) {
  for (const Workload& w : {decode(32), prefill(4, 1000)}) {
    const Prediction p = h200().predict(model("qwen3-30b-a3b"), stages(4, 1), w);
    ASSERT_TRUE(p.pipeline);
    ASSERT_EQ(p.pipeline->stages.size(), 4U);
    ASSERT_EQ(p.pipeline->transfers.size(), 3U);
    double sum = 0;
    for (const auto& stage : p.pipeline->stages) sum += stage.latency.value();
    for (const Seconds transfer : p.pipeline->transfers) sum += transfer.value();
    EXPECT_NEAR(seconds(p), sum, kSameSum * sum);
    EXPECT_NEAR(operator_sum(p), sum, kSameSum * sum);
    EXPECT_GT(p.pipeline->transfers.front().value(), 1e-6);
  }
}

TEST(StepPipeline, StagesOfAPipelineAreTheWholeModel) {
  // The same kernels as on one GPU, in four pieces: decode without a host-bound stage adds up to the whole model.
  const Workload w = decode(128);
  const Prediction whole = h200().predict(model("llama-3.1-70b"), stages(1, std::nullopt, 2), w);
  const Prediction split = h200().predict(model("llama-3.1-70b"), stages(4, 1, 2), w);
  double sum = 0;
  std::int64_t layers = 0;
  for (const auto& stage : split.pipeline->stages) {
    sum += stage.latency.value();
    layers += stage.layers;
  }
  EXPECT_EQ(layers, 80);
  EXPECT_NEAR(sum, seconds(whole), 1e-6 * sum);
}

TEST(StepPipeline, MicroBatchesAreNeverFasterThanTheSlowestStage) {
  for (const Workload& w : {decode(64), prefill(8, 512)}) {
    for (const int m : {1, 2, 4, 8}) {
      const Prediction p = h200().predict(model("qwen3-30b-a3b"), stages(4, m), w);
      const PipelineReport& report = p.pipeline.value();
      EXPECT_EQ(report.micro_batches, m);
      double slowest = 0;
      for (const auto& stage : report.stages) slowest = std::max(slowest, stage.latency.value());
      EXPECT_GE(report.fill_drain.value(), m * slowest * (1 - kSameSum));
      EXPECT_GE(report.period.value(), m * slowest * (1 - kSameSum));
      EXPECT_LE(report.period.value(), report.fill_drain.value() * (1 + kSameSum));
      EXPECT_EQ(p.latency, w.phase == Phase::decode ? report.period : report.fill_drain);
      EXPECT_NEAR(operator_sum(p), seconds(p), kSameSum * seconds(p));
      // Factors stay exclusive shares of the latency.
      const Factors& f = p.factors;
      EXPECT_LE(f.all_to_all.value() + f.memory_bandwidth.value() + f.routing_overhead.value() + f.compute.value(),
                seconds(p) * (1 + kSameSum));
    }
  }
}

TEST(StepPipeline, PromptsGainFromMicroBatchesGenerationFromStages) {
  const Architecture llama = model("llama-3.1-70b");
  // Eight long prompts: bubbles shrink with more micro-batches.
  const double serial = seconds(h200().predict(llama, stages(4, 1, 2), prefill(8, 2048)));
  const double filled = seconds(h200().predict(llama, stages(4, 8, 2), prefill(8, 2048)));
  EXPECT_LT(filled, 0.6 * serial);  // (8 + 3) / 8 / 4 = 0.34 without transfers and hosts
  // More micro-batches than sequences are not made.
  const Prediction two = h200().predict(llama, stages(4, 8, 2), prefill(2, 2048));
  EXPECT_EQ(two.pipeline->micro_batches, 2);
}

TEST(StepPipeline, UnevenLayersAreBetweenTheFewestAndTheMost) {
  const Prediction p = h200().predict(model("deepseek-v3"), stages(4, 4, 8), decode(64));
  const auto& all = p.pipeline->stages;
  EXPECT_EQ(all[0].layers, 15);
  EXPECT_EQ(all[2].layers, 16);
  EXPECT_EQ(all[3].first_layer, 46);
  // Three dense layers on the first stage are cheaper than experts, the head makes the last one dearer.
  EXPECT_LT(all[0].latency, all[1].latency);
  EXPECT_LT(all[1].latency, all[2].latency);
}

TEST(StepPipeline, StagesOnOtherNodesTakeLongerToReach) {
  // 4 stages of 4 ranks: the boundary between stages 2 and 3 is that of two nodes of 8.
  Deployment d = stages(4, 1, 4);
  const Prediction p = h200().predict(model("llama-3.1-70b"), d, prefill(1, 8192));
  const auto& sent = p.pipeline->transfers;
  EXPECT_EQ(sent[0], sent[2]);
  EXPECT_GT(sent[1].value(), 1.2 * sent[0].value());
}

TEST(StepPipeline, RefusalsNameTheRule) {
  const auto why = [](const std::string& name, const Deployment& d) -> std::string {
    try {
      h200().predict(model(name), d, decode(8));
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(why("qwen3-30b-a3b", stages(49)), testing::HasSubstr("49 stages for 48 layers"));
  EXPECT_THAT(why("qwen3-30b-a3b", stages(1, 4)), testing::HasSubstr("need pipeline stages"));
}

TEST(StepPipeline, AStageIsNotCalibratedWhereOneGpuIs) {
  // The interval of a step with stages is that of deployments that were not seen.
  const auto b300 = load_gpu_predictor(kRoot + "/hwprofiles/b300-sxm", kRoot + "/models/plan/engines");
  const Architecture qwen = model("qwen3.6-35b-a3b");
  const auto width = [&](const Deployment& d) {
    const Prediction p = b300->predict(qwen, d, decode(16));
    return std::log(*p.high / *p.low);
  };
  EXPECT_GT(width(stages(2)), 2 * width(stages(1)));
}

}  // namespace
}  // namespace moecast
