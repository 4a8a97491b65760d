#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/pipeline_schedule.h"
#include "sim/step/served_model.h"
#include "sim/step/service_arrivals.h"
#include "sim/step/service_study.h"
#include "tests/support/made_up_service.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

ServiceSetup staged(int stages, double send_s) {
  ServiceSetup setup;
  setup.pipeline = {stages, constant(send_s)};
  return setup;
}

TEST(ServiceStages, MicroBatchesPassThemOneAfterAnother) {
  // Two requests of ten tokens on two stages of 1 s: each takes two seconds a token, the second begins one later.
  const std::vector<ServiceRequest> two(2, ServiceRequest{0, 1, 10});
  const ServiceOutcome outcome = simulate_service(two, staged(2, 0), constant(1));
  EXPECT_DOUBLE_EQ(outcome.jobs[0].first_token_s, 2);
  EXPECT_DOUBLE_EQ(outcome.jobs[1].first_token_s, 3);
  EXPECT_DOUBLE_EQ(outcome.jobs[0].finished_s, 20);
  EXPECT_DOUBLE_EQ(outcome.duration_s, 21);
  EXPECT_DOUBLE_EQ(outcome.utilisation_ratio, 1);
}

TEST(ServiceStages, GenerateAtThePaceOfTheSchedule) {
  // Stages of 1, 3 and 2 s, sends of 0.5 s: tokens come at the period of as many micro-batches.
  const double stage_s[] = {1, 3, 2};
  const auto seconds = [&](const ServiceStep& step) { return stage_s[step.stage]; };
  for (const int batches : {1, 2, 3}) {
    const std::vector<ServiceRequest> requests(static_cast<std::size_t>(batches), ServiceRequest{0, 1, 101});
    const ServiceOutcome outcome = simulate_service(requests, staged(3, 0.5), seconds);
    const std::vector<MicroBatchTimes> schedule(requests.size(), {{1, 3, 2}, {0.5, 0.5}});
    for (const ServiceJob& job : outcome.jobs) {
      EXPECT_NEAR((job.finished_s - job.first_token_s) / 100, pipeline_times(schedule).period_s, 0.01);
    }
  }
}

TEST(ServiceStages, LittlesLawHoldsAndTheCacheIsShared) {
  ServiceSetup setup = staged(4, 1e-4);
  setup.limits.kv_blocks = 4 * 30;
  setup.limits.sequences = 40;
  setup.warmup_requests = 200;
  const std::vector<ServiceRequest> requests = poisson_requests(40, 4000, 200, 50, 3);
  const auto seconds = [](const ServiceStep& step) { return made_up_step(step) / 4; };
  const ServiceOutcome outcome = simulate_service(requests, setup, seconds);
  double residence = 0;
  for (const ServiceJob& job : outcome.jobs) {
    EXPECT_EQ(job.generated, 50);
    EXPECT_EQ(job.blocks, 0);
    residence += job.finished_s - job.arrival_s;
  }
  EXPECT_NEAR(outcome.whole_run_in_flight_mean, residence / outcome.duration_s,
              0.01 * outcome.whole_run_in_flight_mean);
  EXPECT_LE(outcome.counts.most_running, 10U);
  EXPECT_LE(outcome.counts.most_blocks, 30);
  // A request must fit into its micro-batch's share.
  setup.limits.kv_blocks = 4 * 15;
  EXPECT_THROW(simulate_service(requests, setup, seconds), InputError);
}

TEST(ServiceStages, RequestsGoToTheLeastLoadedInstance) {
  ServiceSetup setup = staged(2, 0);
  setup.instances = 2;
  const std::vector<ServiceRequest> two(2, ServiceRequest{0, 1, 10});
  for (const ServiceJob& job : simulate_service(two, setup, constant(1)).jobs) {
    EXPECT_DOUBLE_EQ(job.first_token_s, 2) << "nobody waits for a stage while an instance is idle";
  }
}

TEST(ServiceStages, SaturateAtOneStepAStage) {
  // Batches of 8 sequences on each of four stages of 10 ms: 8 tokens every 10 ms, of requests of 20 tokens.
  ServiceSetup setup = staged(4, 0);
  setup.limits.sequences = 32;
  const std::vector<ServiceRequest> requests = poisson_requests(1, 100, 1, 20, 3);
  EXPECT_NEAR(*saturation_rate(requests, setup, constant(0.01)), 8 / 0.01 / 20, 2);
}

ServedModel served_as(const Deployment& deployment) {
  ServedLoad load;
  load.law = StepLaw::host;
  load.longest = 8192;
  load.experts.kind = LoadKind::log_normal;
  load.experts.parameter = 1;
  return serve_model(load_architecture(kRoot + "/models/zoo/qwen3-235b-a22b.json"), deployment,
                     kRoot + "/hwprofiles/h200-sxm", kRoot + "/models/plan/engines", load);
}

Deployment deployed(int tp, int pp, int cp) {
  Deployment d;
  d.tp = tp;
  d.pp = pp;
  d.cp = cp;
  d.ep = tp * cp;
  d.dtype = DType::fp8_block;
  d.backend = "vllm";
  return d;
}

TEST(ServiceStages, StepsOfContextParallelRanksAreThoseOfThePredictor) {
  const auto predictor = load_gpu_predictor(kRoot + "/hwprofiles/h200-sxm", kRoot + "/models/plan/engines");
  const Architecture architecture = load_architecture(kRoot + "/models/zoo/qwen3-235b-a22b.json");
  const Deployment deployment = deployed(2, 1, 4);
  const ServedModel served = served_as(deployment);
  ASSERT_EQ(served.status, Status::ok);
  Workload w;
  w.load.kind = LoadKind::log_normal;
  w.load.parameter = 1;
  w.batch = 32;
  w.context = 5000;
  EXPECT_NEAR(served.seconds({32, 5001}, IntervalEnd::middle),
              predictor->predict(architecture, deployment, w).latency->value(), 2e-4);
  w.phase = Phase::prefill;
  w.batch = 1;
  w.prompt = 2048;
  w.context = 2048;
  const double whole = predictor->predict(architecture, deployment, w).latency->value();
  EXPECT_NEAR(served.seconds({0, 0, 2048, 1, 2048, 2048}, IntervalEnd::middle), whole, 0.02 * whole);
}

TEST(ServiceStages, ARequestFitsIntoOneRankOfAttention) {
  ServedLoad load;
  load.longest = 1'000'000;
  Deployment replicas = deployed(1, 1, 1);
  replicas.dp = replicas.ep = 8;
  replicas.dtype.reset();
  Architecture stretched = load_architecture(kRoot + "/models/zoo/mixtral-8x7b.json");
  stretched.max_context = 2'000'000;
  const auto status = [&] {
    return serve_model(stretched, replicas, kRoot + "/hwprofiles/h200-sxm", kRoot + "/models/plan/engines", load)
        .status;
  };
  EXPECT_EQ(status(), Status::does_not_fit) << "eight ranks do not hold one sequence together";
  load.longest = 500'000;
  EXPECT_EQ(status(), Status::ok);
}

TEST(ServiceStages, ThoseOfAModelAddUpToItsStepAlone) {
  const ServedModel served = served_as(deployed(2, 4, 1));
  ASSERT_EQ(served.status, Status::ok);
  ASSERT_EQ(served.stages.size(), 4U);
  EXPECT_EQ(served.stages[1], served.stages[2]);
  double sum = 0;
  for (int stage = 0; stage < 4; ++stage) {
    ServiceStep step{8, 3000};
    step.stage = stage;
    sum += served.seconds(step, IntervalEnd::middle);
    if (stage == 3) break;
    EXPECT_GT(served.stages_of_instance().send(step), 0);
    sum += served.stages_of_instance().send(step);
  }
  const ServiceRequest request{0, 3000 - 8, 17};
  ServiceSetup setup;
  setup.limits = served.limits;
  setup.pipeline = served.stages_of_instance();
  const ServiceOutcome alone = simulate_service(
      {&request, 1}, setup, [&](const ServiceStep& step) { return served.seconds(step, IntervalEnd::middle); });
  // Eight sequences touch more experts, and gather more logits, than one.
  EXPECT_GT(sum, alone.tpot->p50);
  EXPECT_LT(sum, 1.7 * alone.tpot->p50);
  // Each stage keeps a quarter of a sequence; eight tensor-parallel ranks have each of the four KV heads twice.
  const ServedModel whole = served_as(deployed(8, 1, 1));
  EXPECT_NEAR(static_cast<double>(served.cache_tokens) / static_cast<double>(whole.cache_tokens), 2, 0.2);
}

}  // namespace
}  // namespace moecast
