// Steps on pipeline stages, their MoE layers over sampled routings.
#include "sim/event/ep_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "models/core/error.h"
#include "tests/support/h200_machine.h"

namespace moecast {
namespace {

Deployment stages(int ranks, int count) {
  Deployment d;
  d.ep = d.dp = ranks;
  d.pp = count;
  d.backend = "sglang";
  return d;
}

Workload decode(std::int64_t batch) {
  Workload w;
  w.batch = batch;
  w.context = 2000;
  return w;
}

Prediction events(const Deployment& deployment, const Workload& workload, const EpOptions& options = samples_of(8)) {
  return predict_ep(h200_machine(), h200_rails(), zoo_model("deepseek-v3"), deployment, workload, options,
                    &h200_analytic());
}

TEST(EpPipeline, AStageIsTheStepOfItsLayers) {
  const Deployment two = stages(8, 2);
  const Prediction p = events(two, decode(512));
  ASSERT_EQ(p.status, Status::ok) << p.reason;
  ASSERT_TRUE(p.pipeline && p.distribution);
  ASSERT_EQ(p.pipeline->stages.size(), 2U);
  EXPECT_EQ(p.pipeline->stages[0].layers + p.pipeline->stages[1].layers, 61);
  EXPECT_EQ(p.pipeline->micro_batches, 2);
  // Generation takes a period: two micro-batches, each one stage after the other.
  const double path =
      p.pipeline->stages[0].latency.value() + p.pipeline->stages[1].latency.value() + p.pipeline->transfers[0].value();
  EXPECT_GE(p.latency->value(), 0.999 * path);
  EXPECT_LE(p.latency->value(), 1.25 * path);
  EXPECT_LT(p.distribution->p50, p.distribution->p99);
  const double listed = std::accumulate(p.operators.begin(), p.operators.end(), 0.0,
                                        [](double sum, const OperatorCost& op) { return sum + op.latency.value(); });
  EXPECT_NEAR(listed / p.latency->value(), 1, 0.06) << "shared experts run beside the dispatch";
  EXPECT_LT(*p.low, *p.latency);
  EXPECT_GT(*p.high, *p.latency);
}

TEST(EpPipeline, IsCloseToTheClosedForm) {
  for (const Phase phase : {Phase::decode, Phase::prefill, Phase::mixed}) {
    Workload w = decode(512);
    w.phase = phase;
    w.prompt = 512;
    if (phase == Phase::prefill) w.batch = 16;
    if (phase == Phase::prefill) w.context = 0;
    if (phase == Phase::mixed) w.prefill_batch = 16;
    const Deployment d = stages(8, 2);
    const Prediction closed = h200_analytic().predict(zoo_model("deepseek-v3"), d, w);
    const Prediction p = events(d, w);
    ASSERT_TRUE(p.latency && closed.latency) << p.reason << closed.reason;
    RecordProperty(std::string(to_string(phase)), std::to_string(*p.latency / *closed.latency));
    EXPECT_NEAR(*p.latency / *closed.latency, 1, 0.02) << to_string(phase);
    EXPECT_EQ(p.pipeline->micro_batches, closed.pipeline->micro_batches);
    EXPECT_EQ(p.memory.total().value(), closed.memory.total().value());
  }
}

TEST(EpPipeline, ASlowRankSlowsItsStage) {
  EpOptions options = samples_of(4);
  const Prediction usual = events(stages(8, 2), decode(512), options);
  options.slow_ranks = {{11, 2.0}};
  const Prediction slow = events(stages(8, 2), decode(512), options);
  EXPECT_NEAR(slow.pipeline->stages[0].latency / usual.pipeline->stages[0].latency, 1, 1e-9);
  EXPECT_GT(slow.pipeline->stages[1].latency / usual.pipeline->stages[1].latency, 1.3);
  EXPECT_GT(*slow.latency, *usual.latency);
  options.slow_ranks = {{16, 2.0}};
  EXPECT_THROW(events(stages(8, 2), decode(512), options), InputError);
}

TEST(EpPipeline, AStageOfDenseLayersHasNoRoutings) {
  // 21 stages: the first holds three dense layers at most, and no MoE layer.
  const Deployment many = stages(8, 21);
  const Prediction p = events(many, decode(1344), samples_of(2));
  ASSERT_EQ(p.status, Status::ok) << p.reason;
  EXPECT_EQ(p.pipeline->stages.size(), 21U);
  EXPECT_GT(p.pipeline->stages[0].latency.value(), 0);
  const Prediction closed = h200_analytic().predict(zoo_model("deepseek-v3"), many, decode(1344));
  RecordProperty("ratio", std::to_string(p.pipeline->stages[0].latency / closed.pipeline->stages[0].latency));
  EXPECT_NEAR(p.pipeline->stages[0].latency / closed.pipeline->stages[0].latency, 1, 0.01);
}

TEST(EpPipeline, SaysWhatIsOfOneStage) {
  EpOptions options = samples_of(2);
  options.slow_links = {{"rank 2 port in", 0.25}};
  EXPECT_THROW(events(stages(8, 2), decode(512), options), InputError);
  options = samples_of(2);
  options.batches = 2;
  EXPECT_THROW(events(stages(8, 2), decode(512), options), InputError);
  Deployment offloads = stages(8, 2);
  offloads.offload = ExpertOffload{};
  EXPECT_THROW(events(offloads, decode(512)), InputError);
  EXPECT_THROW(predict_ep(h200_machine(), h200_rails(), zoo_model("llama-3.1-70b"), stages(8, 2), decode(64),
                          samples_of(2), &h200_analytic()),
               InputError)
      << "no experts, no routing";
  EXPECT_THROW(events(stages(8192, 2), decode(65536)), InputError) << "more ranks than the cluster has";
  EXPECT_THROW(
      predict_ep(h200_machine(), h200_rails(), zoo_model("deepseek-v3"), stages(8, 2), decode(512), samples_of(2)),
      InputError)
      << "nobody says what lies around the MoE layers";
}

}  // namespace
}  // namespace moecast
