#include "sim/step/batch_overlap.h"

#include <gtest/gtest.h>

#include "models/architecture/reader.h"
#include "sim/predictor.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/service_step_times.h"

namespace moecast {
namespace {

/// Computation: `fixed` seconds (weights) and a second a row. Exchange: `travel` seconds a row.
StepModel model(double fixed, double travel, std::optional<double> taken) {
  StepOperators operators;
  operators.layers = 1;
  operators.overlapped = taken;
  operators.operators.push_back(
      {"gemm", "made up", StepGroup::gemm, 1, [fixed](const StepShape& s) { return fixed + s.rows; }});
  operators.operators.push_back(
      {"dispatch", "made up", StepGroup::communication, 1, [travel](const StepShape& s) { return travel * s.rows; }});
  return {operators, EngineSpec{}, Deployment{}, DeviceLimits{1e12, 1e15}};
}

StepShape prompts(double count) {
  StepShape shape;
  shape.prompts = count;
  shape.rows = shape.context = 10 * count;
  return shape;
}

TEST(BatchOverlap, OneHalfComputesWhileTheOtherTravels) {
  // Whole: 4 + 80 + 40 = 124. Halves compute 2 * (4 + 40) = 88 and travel 40: with a quarter of the
  // multiprocessors taken 88 + 10, so 10 of 40 are seen.
  const BatchOverlap halves = best_overlap(model(4, 0.5, 0.25), prompts(8));
  EXPECT_EQ(halves.parts, 2);
  EXPECT_NEAR(halves.exposed, 10.0 / 40, 1e-12);
  // Exchanges that take longer than everything else are seen as far as they do: 160 - 88 of 160.
  EXPECT_NEAR(best_overlap(model(4, 2, 0.25), prompts(8)).exposed, 72.0 / 160, 1e-12);
  // Generated rows take no multiprocessors.
  StepShape decodes;
  decodes.decodes = decodes.rows = 80;
  EXPECT_NEAR(best_overlap(model(4, 0.5, 0.25), decodes).exposed, 0, 1e-12);
}

TEST(BatchOverlap, ServicesTakeTheSameSteps) {
  const auto overlapping = std::make_shared<const StepModel>(model(4, 0.5, 0.25));
  const auto times = [&](const StepShape& shape) { return overlapping->times(shape); };
  EXPECT_NEAR(sum(overlapped_times(overlapping->operators(), prompts(8), times)), 88 + 10, 1e-9);
  EXPECT_NEAR(sum(overlapped_times(overlapping->operators(), prompts(1), times)), 4 + 10 + 5, 1e-9);
  const ServiceStepTimes service(overlapping, true);
  EXPECT_NEAR(service.seconds({0, 0, 80, 8, 0, 10, false}, IntervalEnd::middle), 98, 0.5);
}

TEST(BatchOverlap, WholeBatchesWhereWeightsReadTwiceCostMore) {
  // Whole: 100 + 80 + 40 = 220; halves 2 * 140 = 280.
  EXPECT_EQ(best_overlap(model(100, 0.5, 0.25), prompts(8)).parts, 1);
  EXPECT_EQ(best_overlap(model(4, 0.5, std::nullopt), prompts(8)).parts, 1);
  EXPECT_EQ(best_overlap(model(4, 0.5, 0.25), prompts(1)).parts, 1);
}

TEST(BatchOverlap, SGLangOnFourNodesHidesMostOfTheExchangeOfPrompts) {
  const std::string root = MOECAST_SOURCE_DIR;
  const auto h100 = load_gpu_predictor(root + "/hwprofiles/h100-sxm", root + "/models/plan/engines");
  Deployment d;
  d.dp = d.ep = 32;
  d.backend = "sglang";
  d.redundant_experts = 32;
  Workload w;
  w.phase = Phase::prefill;
  w.batch = 32 * 4;
  w.prompt = 4096;
  const Prediction p = h100->predict(load_architecture(root + "/models/zoo/deepseek-v3.json"), d, w);
  ASSERT_EQ(p.status, Status::ok) << p.reason;
  double exchange = 0;
  double agreement = 0;
  double sum = 0;
  for (const OperatorCost& op : p.operators) {
    sum += op.latency.value();
    if (op.name == "dispatch" || op.name == "combine") exchange += op.latency.value();
    if (op.name == "replicas.all_reduce") agreement += op.latency.value();
  }
  EXPECT_NEAR(sum, p.latency->value(), 1e-9 * sum);
  EXPECT_GT(agreement, 0) << "replicas tell each other how many rows they have";
  EXPECT_NEAR(exchange + agreement, p.factors.all_to_all.value(), 1e-9);
  // 24 of 132 multiprocessors.
  EXPECT_GT(exchange, 0.05 * sum);
  EXPECT_LT(exchange, 0.15 * sum);
}

}  // namespace
}  // namespace moecast
