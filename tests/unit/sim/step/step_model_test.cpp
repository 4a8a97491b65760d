#include "sim/step/step_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "sim/step/distinct_experts.h"
#include "sim/step/step_log_model.h"

namespace moecast {
namespace {

EngineSpec engine() {
  EngineSpec spec;
  spec.name = "made-up";
  spec.graph_rows = {1, 2, 4, 8};
  spec.largest_prefill_graph = 512;
  spec.host.layer_kernels_s = 1e-5;
  spec.host.prepare_s = 1e-4;
  spec.host.eager_gap_s = 2e-5;
  spec.host.token_bytes = 100;
  spec.host.piece_launch_s = 3e-4;
  spec.host.eager_launch_s = 9e-4;
  spec.host.wake_s = 5e-3;
  spec.host.graph_step_s = 2e-3;
  spec.host.collective_launch_s = 1e-5;
  return spec;
}

/// Ten layers, hidden 1000, one operator of `rows` microseconds a row.
StepModel model(int tp = 1, int dp = 1) {
  StepOperators operators;
  operators.layers = 10;
  operators.moe_layers = 10;
  operators.hidden = 1000;
  operators.collectives = 20;
  operators.operators.push_back(
      {"gemm", "made up", StepGroup::gemm, 10, [](const StepShape& s) { return 1e-6 * s.rows; }});
  Deployment deployment;
  deployment.tp = tp;
  deployment.dp = dp;
  DeviceLimits device;
  device.bandwidth = 1e12;
  device.peak_bf16 = 1e15;
  return {operators, engine(), deployment, device};
}

TEST(StepModel, PadsToTheNextCapturedGraph) {
  EXPECT_EQ(engine().padded_rows(3), 4);
  EXPECT_EQ(engine().padded_rows(8), 8);
  EXPECT_EQ(engine().padded_rows(9), 9);
}

TEST(StepModel, DecodeIsKernelsAndWhatNoTableHoldsOrTheHost) {
  const StepModel steps = model();
  // 10 layers: 100 us of other kernels.
  EXPECT_NEAR(steps.cost({0.01, 8, StepLaunch::graph, false}).seconds, 0.0101, 1e-12);
  const StepCost idle = steps.cost({0.0001, 8, StepLaunch::graph, false});
  EXPECT_NEAR(idle.seconds, 2e-3, 1e-12);
  EXPECT_TRUE(idle.host_bound);
}

TEST(StepModel, PromptsPrepareThenLaunchOrCompute) {
  const StepModel steps = model();
  // Pieces: 1 ms of preparation, 3 ms of launching; device: 1 ms kernels, 0.1 ms other, elementwise.
  const StepCost short_prompt = steps.cost({1e-3, 100, StepLaunch::piecewise, false});
  EXPECT_TRUE(short_prompt.host_bound);
  EXPECT_NEAR(short_prompt.seconds, 1e-3 + 3e-3, 1e-12);
  EXPECT_NEAR(steps.cost({1e-3, 100, StepLaunch::piecewise, true}).seconds, 1e-3 + 3e-3 + 5e-3, 1e-12);
  // Eager: 9 ms of launching and 20 collectives; long enough kernels hide them.
  EXPECT_NEAR(steps.cost({1e-3, 1000, StepLaunch::eager, false}).seconds, 1e-3 + 9e-3 + 20e-5, 1e-12);
  const double elementwise = 1000 * 10 * 1000 * 100 / 0.7e12;
  EXPECT_NEAR(steps.cost({0.05, 1000, StepLaunch::eager, false}).seconds, 1e-3 + 0.05 + 1e-4 + 2e-4 + elementwise,
              1e-9);
  // Tensor parallelism splits only a part of that traffic.
  EXPECT_NEAR(model(4).cost({0.05, 1000, StepLaunch::eager, false}).elementwise_s, elementwise * (0.29 + 0.71 / 4),
              1e-12);
}

TEST(StepModel, NothingIsFreeOnlyBecauseItIsUnknown) {
  const StepModel steps = model();
  StepTimes times{};
  times[0] = 0.01;
  const StepCost cost = steps.cost({0.01, 8, StepLaunch::graph, false});
  EXPECT_GT(steps.sigma(times, cost, StepLaunch::graph), 0.05);
  EXPECT_LT(steps.sigma(times, cost, StepLaunch::graph), 0.10);
}

std::vector<StepRecord> burst() {
  std::vector<StepRecord> records(6);
  for (std::size_t i = 0; i < records.size(); ++i) {
    records[i].decodes = 4;
    records[i].decode_kv = 100;
    records[i].latency_s = 0.01;
    records[i].after_idle = i == 0;
  }
  records[2].context_tokens = 300;
  records[2].prompts = 1;
  return records;
}

TEST(StepLog, AWorkerInsideTheSchedulerShiftsTheHostAndKeepsTheSum) {
  const std::vector<StepRecord> records = burst();
  const StepModel inside = model();
  const std::vector<LoggedStep> steps = logged_steps(inside, records);
  const std::vector<double> logged = logged_seconds(inside, steps, inside.engine().host);
  double costs = 0;
  for (const LoggedStep& step : steps) costs += inside.cost(step.terms).seconds;
  // One step reads 0 here, which no log does: at least 0.4 ms.
  EXPECT_NEAR(std::accumulate(logged.begin(), logged.end(), 0.0), costs + 0.4e-3, 1e-9);
  // The decode before the prompt reads the prompt's preparation.
  EXPECT_GT(logged[1], 1.5 * logged[3]);
  // Several ranks: workers in processes of their own.
  const StepModel outside = model(2);
  const std::vector<LoggedStep> apart = logged_steps(outside, records);
  const std::vector<double> plain = logged_seconds(outside, apart, outside.engine().host);
  for (std::size_t i = 0; i < apart.size(); ++i) EXPECT_EQ(plain[i], outside.cost(apart[i].terms).seconds);
}

TEST(StepLog, ReplicasPadToTheFullest) {
  std::vector<StepRecord> records = burst();
  const std::vector<LoggedStep> alone = logged_steps(model(), records);
  const std::vector<LoggedStep> replicas = logged_steps(model(1, 4), records);
  // 4 sequences fit a graph of 4; one more on another rank means 8: the mean of both.
  EXPECT_NEAR(alone[0].terms.kernels_s, 10 * 4e-6, 1e-12);
  EXPECT_NEAR(replicas[0].terms.kernels_s, 10 * 6e-6, 1e-12);
  // The host takes 2 ms whatever they do. Of slow kernels 4 rows take 4 ms, 8 take 8 ms, others 100 us.
  EXPECT_EQ(replicas[0].unseen[0], 0);
  EXPECT_EQ(alone[0].unseen[1], 0);
  StepOperators slow = model(1, 4).operators();
  slow.operators[0].seconds = [](const StepShape& s) { return 1e-4 * s.rows; };
  const StepModel bound(slow, engine(), model(1, 4).deployment(), DeviceLimits{1e12, 1e15});
  const LoggedStep step = logged_steps(bound, records).front();
  EXPECT_NEAR(step.unseen[0], std::log(6.1 / 4.1), 1e-9);
  EXPECT_NEAR(step.unseen[1], std::log(8.1 / 6.1), 1e-9);
  // A short prompt waits for the long one that another rank may have: 604 rows a millisecond each, not 104.
  records[3].context_tokens = 600;
  records[3].prompts = 1;
  records[2].context_tokens = 100;
  const std::vector<LoggedStep> prompts = logged_steps(bound, records);
  const double longer = bound.cost({604 * 1e-3, 604, StepLaunch::eager, false}).seconds;
  EXPECT_NEAR(prompts[2].unseen[1], std::log(longer / bound.cost(prompts[2].terms).seconds), 1e-9);
  EXPECT_EQ(prompts[2].unseen[0], 0);
  EXPECT_EQ(prompts[3].unseen[1], 0);  // made-up kernels ask nothing of experts
}

TEST(StepLog, TheFitFindsTheHostThatMadeTheLog) {
  const StepModel truth = model(2);
  std::vector<StepRecord> records;
  for (int i = 0; i < 400; ++i) {
    StepRecord record;
    record.decodes = 1 + i % 8;
    record.decode_kv = 100;
    if (i % 5 == 0) record.context_tokens = 50 + 37 * (i % 40), record.prompts = 1;
    record.latency_s = 1;
    records.push_back(record);
  }
  EngineHost host = truth.engine().host;
  host.prepare_s *= 1.5;
  host.eager_launch_s *= 0.8;
  const std::vector<LoggedStep> steps = logged_steps(truth, records);
  const std::vector<double> seconds = logged_seconds(truth, steps, host);
  for (std::size_t i = 0; i < records.size(); ++i) records[i].latency_s = seconds[i];
  const std::vector<double> before = logged_seconds(truth, steps, truth.engine().host);
  const std::vector<double> after = logged_seconds(truth, steps, fit_engine_host(truth, records, steps));
  double error_before = 0;
  double error_after = 0;
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    error_before = std::max(error_before, std::abs(before[i] / seconds[i] - 1));
    error_after = std::max(error_after, std::abs(after[i] / seconds[i] - 1));
  }
  EXPECT_GT(error_before, 0.1);
  EXPECT_LT(error_after, 0.04);
}

TEST(DistinctExperts, OneTokenTouchesItsChoiceAndManyTouchAll) {
  const DistinctExperts alone(64, 4, 1, 1.0);
  EXPECT_NEAR(alone.at(1), 4, 1e-9);
  EXPECT_NEAR(alone.at(1e6), 64, 1.5);
  const DistinctExperts spread(64, 4, 8, 1.0);
  EXPECT_GT(spread.at(1), 4.0 / 8);  // the fullest rank has more than its share
  EXPECT_LE(spread.at(1e6), 8);
  // Uniform popularity: E (1 - (1 - k/E)^T) in expectation.
  const DistinctExperts even(64, 4, 1, 0);
  EXPECT_NEAR(even.at(8), 64 * (1 - std::pow(1 - 4.0 / 64, 8)), 0.5);
  EXPECT_GT(even.at(8), alone.at(8));
  EXPECT_THROW(DistinctExperts(64, 4, 7, 1.0), InputError);
}

}  // namespace
}  // namespace moecast
