// Training steps of GPUs as events over the links of a cluster.
#include "sim/event/training_events.h"

#include <gtest/gtest.h>

#include <string>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {
namespace {

const std::string kData = MOECAST_SOURCE_DIR "/hwprofiles/";

class TrainingEventsOfH200 : public testing::Test {
 protected:
  static const GpuMachine& machine() {
    static const GpuMachine read = read_gpu_machine(kData + "h200-sxm");
    return read;
  }
  static const Predictor& closed() {
    static const auto read = load_gpu_predictor(kData + "h200-sxm", MOECAST_SOURCE_DIR "/models/plan/engines");
    return *read;
  }
  static Cluster cluster(const std::string& name) { return read_cluster(kData + "clusters/" + name + ".json"); }

  Prediction predict(const Deployment& deployment, const TrainingEventOptions& options = {},
                     const std::string& wires = "h200-hgx-rail", int replicas = 1) const {
    return predict_training_events(closed(), machine(), cluster(wires), model_, deployment, work(replicas), options);
  }
  static Workload work(int replicas) {
    Workload w;
    w.phase = Phase::train;
    w.batch = 8;
    w.prompt = 512;
    w.training.replicas = replicas;
    return w;
  }
  static Deployment spread(int tp, int dp, int ep) {
    Deployment d;
    d.tp = tp;
    d.dp = dp;
    d.ep = ep;
    return d;
  }

  const Architecture model_ = load_zoo(MOECAST_SOURCE_DIR "/models/zoo", "olmoe-1b-7b");
};

TEST_F(TrainingEventsOfH200, AreTheClosedFormWhereNothingIsShared) {
  for (const Deployment& deployment : {spread(1, 8, 8), spread(8, 1, 8), spread(1, 8, 1)}) {
    const Prediction expected = closed().predict(model_, deployment, work(1));
    ASSERT_TRUE(expected.latency) << expected.reason;
    const Prediction events = predict(deployment);
    EXPECT_NEAR(*events.latency / *expected.latency, 1, 1e-3);
    EXPECT_NEAR(*events.high / *expected.high, 1, 1e-3);
    EXPECT_EQ(events.bottleneck, expected.bottleneck);
  }
}

TEST_F(TrainingEventsOfH200, LinksAndRanksThatAreSlowSlowIt) {
  const Prediction usual = predict(spread(1, 8, 8));
  TrainingEventOptions options;
  options.slow_links = {{"rank 2 port in", 0.25}};
  const Prediction degraded = predict(spread(1, 8, 8), options);
  EXPECT_GT(degraded.factors.all_to_all / usual.factors.all_to_all, 2);
  EXPECT_EQ(degraded.factors.compute.value(), usual.factors.compute.value()) << "kernels stay as they are";
  options = {};
  options.background_share = 0.5;
  EXPECT_GT(*predict(spread(1, 8, 8), options).latency, *usual.latency);
  options = {};
  options.slow_ranks = {{3, 2.0}};
  const Prediction slow = predict(spread(1, 8, 8), options);
  EXPECT_NEAR(slow.factors.compute / usual.factors.compute, 2, 1e-9);
  EXPECT_NEAR(slow.factors.all_to_all / usual.factors.all_to_all, 1, 1e-6);
  options.slow_ranks = {{8, 2.0}};
  EXPECT_THROW(predict(spread(1, 8, 8), options), InputError);
}

TEST_F(TrainingEventsOfH200, ReplicasOnAnotherNodeReduceGradientsOverNics) {
  const Deployment node = spread(8, 1, 8);
  // Two replicas of eight ranks: every gradient crosses nodes.
  const Prediction apart = closed().predict(model_, node, work(2));
  const Prediction events = predict(node, {}, "h200-hgx-rail", 2);
  const auto reduction = [](const Prediction& p) {
    return p.training->latency[static_cast<std::size_t>(TrainingPhase::gradient_reduction)].value();
  };
  // The closed form is the law of NCCL between nodes; events stretch that of neighbours by what the wires carry.
  EXPECT_GE(reduction(events) / reduction(apart), 1);
  EXPECT_LE(reduction(events) / reduction(apart), 1.4);
  EXPECT_GT(reduction(apart) / reduction(closed().predict(model_, spread(1, 2, 2), work(1))), 4) << "over NVLink";
  EXPECT_NEAR(events.training->latency[0] / apart.training->latency[0], 1, 1e-6) << "the forward pass stays inside";
}

/// Eight micro-batches through two stages of four ranks each.
struct TwoStages {
  TwoStages() {
    deployment.dp = deployment.ep = 4;
    deployment.pp = 2;
    workload.phase = Phase::train;
    workload.batch = 32;
    workload.prompt = 1024;
    workload.training.accumulation = 8;
  }
  Deployment deployment;
  Workload workload;
};

TEST_F(TrainingEventsOfH200, StagesTakeWhatTheClosedFormSaysUpToTheirSends) {
  const TwoStages two;
  const Prediction expected = closed().predict(model_, two.deployment, two.workload);
  ASSERT_TRUE(expected.latency) << expected.reason;
  const Prediction events =
      predict_training_events(closed(), machine(), cluster("h200-hgx-rail"), model_, two.deployment, two.workload, {});
  // The closed form stops both stages while one sends to the other; here who receives goes on.
  EXPECT_LE(*events.latency / *expected.latency, 1.001);
  EXPECT_GE(*events.latency / *expected.latency, 0.97);
  ASSERT_TRUE(events.pipeline && expected.pipeline);
  EXPECT_EQ(events.pipeline->micro_batches, 8);
  ASSERT_EQ(events.pipeline->stages.size(), 2U);
  for (std::size_t s = 0; s < 2; ++s) {
    EXPECT_NEAR(events.pipeline->stages[s].latency / expected.pipeline->stages[s].latency, 1, 1e-3);
  }
  EXPECT_NEAR(events.pipeline->transfers[0] / expected.pipeline->transfers[0], 1, 1e-3);
  EXPECT_NEAR(events.pipeline->fill_drain_bubble_ratio, expected.pipeline->fill_drain_bubble_ratio, 0.03);
  EXPECT_EQ(events.training->devices, 8);
  double phases = 0;
  for (const Seconds phase : events.training->latency) phases += phase.value();
  EXPECT_NEAR(phases / events.latency->value(), 1, 1e-9) << "phases sum to the whole";
}

TEST_F(TrainingEventsOfH200, ASlowRankSlowsItsStageAndTheOthersWait) {
  const TwoStages two;
  TrainingEventOptions options;
  const auto events = [&] {
    return predict_training_events(closed(), machine(), cluster("h200-hgx-rail"), model_, two.deployment, two.workload,
                                   options);
  };
  const Prediction usual = events();
  options.slow_ranks = {{6, 2.0}};
  const Prediction slow = events();
  EXPECT_NEAR(slow.pipeline->stages[0].latency / usual.pipeline->stages[0].latency, 1, 1e-3);
  EXPECT_GT(slow.pipeline->stages[1].latency / usual.pipeline->stages[1].latency, 1.3);
  EXPECT_GT(*slow.latency / *usual.latency, 1.3);
  EXPECT_GT(slow.pipeline->fill_drain_bubble_ratio, usual.pipeline->fill_drain_bubble_ratio);
  options.slow_ranks = {{8, 2.0}};
  EXPECT_THROW(events(), InputError);
}

TEST_F(TrainingEventsOfH200, StagesOnTwoNodesSendOverNics) {
  TwoStages two;
  const auto sent = [&] {
    const Prediction p = predict_training_events(closed(), machine(), cluster("h200-hgx-rail"), model_, two.deployment,
                                                 two.workload, {});
    return p.pipeline->transfers[0].value();
  };
  const double inside = sent();
  two.deployment.dp = two.deployment.ep = 8;
  two.workload.batch = 64;  // as much a rank
  EXPECT_GT(sent() / inside, 3) << "450 GB/s of NVLink against 50 GB/s of a NIC, less what starts cost";
}

TEST_F(TrainingEventsOfH200, SaysWhatItCannotDo) {
  TwoStages two;
  two.workload.training.accumulation = 100'000;
  two.workload.batch = 400'000;
  EXPECT_THROW(
      predict_training_events(closed(), machine(), cluster("h200-hgx-rail"), model_, two.deployment, two.workload, {}),
      InputError)
      << "more tasks than are simulated";
  TrainingEventOptions options;
  options.slow_links = {{"no such link", 0.5}};
  EXPECT_THROW(predict(spread(1, 8, 8), options), InputError);
  EXPECT_EQ(predict(spread(1, 8, 8), {}, "tpu-like-torus").origin, Origin::assumed)
      << "bandwidths that the file assumes";
}

}  // namespace
}  // namespace moecast
