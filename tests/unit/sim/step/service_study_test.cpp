#include "sim/step/service_study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "models/core/error.h"
#include "sim/step/service_arrivals.h"
#include "sim/step/service_step_times.h"
#include "tests/support/made_up_service.h"

namespace moecast {
namespace {

using testing::HasSubstr;

/// Interpolated steps against the model's own.
constexpr double kGridTolerance = 0.01;

TEST(ServiceStudy, SaturationOfAServerIsItsServiceRate) {
  EXPECT_NEAR(*saturation_rate(waiting_requests(1, 10, 1), single_server(), constant(0.02)), 50, 1e-6);
  // A batch of four sequences: 3 tokens in 3 steps of 20 ms for four requests.
  ServiceSetup setup;
  setup.limits.sequences = 4;
  EXPECT_NEAR(*saturation_rate(waiting_requests(1, 10, 3), setup, constant(0.02)), 4 / 0.06, 0.1);
}

TEST(ServiceStudy, WhatIsServedAtOnceHasAFiniteRate) {
  ServiceSetup setup;
  setup.limits.sequences = 1 << 20;  // all that wait end with the same step
  setup.limits.batched_tokens = 1 << 20;
  const std::optional<double> rate = saturation_rate(waiting_requests(1, 1, 1), setup, constant(0.02));
  ASSERT_TRUE(rate);
  EXPECT_TRUE(std::isfinite(*rate));
  EXPECT_GT(*rate, 1 / 0.02);
}

TEST(ServiceStudy, ARateBeyondSaturationIsUnstable) {
  const auto study = [](double rate) {
    return study_service(poisson_requests(rate, 3000, 10, 1, 7), single_server(), rate, constant(0.02));
  };
  const ServiceStudy below = study(40);
  EXPECT_TRUE(below.stable);
  EXPECT_NEAR(*below.load_ratio, 0.8, 1e-6);
  EXPECT_EQ(below.queue_growth_per_s, std::nullopt);
  const ServiceStudy beyond = study(75);
  EXPECT_FALSE(beyond.stable);
  EXPECT_THAT(beyond.reason, HasSubstr("at most 50 can be served"));
  // 75 come, 50 go.
  EXPECT_NEAR(*beyond.queue_growth_per_s, 25, 3);
}

TEST(ServiceStudy, ARecordedBurstEndsWhereALastingRateWouldNot) {
  // Ten at once find room in the batch, although nobody could serve so many a second for long.
  std::vector<ServiceRequest> burst = poisson_requests(10'000, 10, 10, 5, 7);
  EXPECT_TRUE(study_service(burst, {}, std::nullopt, made_up_step).stable);
  // A queue that grows all the time is one that lasts.
  const std::vector<ServiceRequest> recorded = poisson_requests(75, 3000, 10, 1, 7);
  EXPECT_FALSE(study_service(recorded, single_server(), std::nullopt, constant(0.02)).stable);
  // Large batches hide it for a while: 1.2 times what can be served waits less than a batch after many of them.
  ServiceSetup wide;
  wide.limits.sequences = 256;
  const double most = *saturation_rate(waiting_requests(1, 10, 100), wide, constant(0.02));
  const std::vector<ServiceRequest> above = poisson_requests(1.2 * most, 3000, 10, 100, 7);
  const ServiceStudy study = study_service(above, wide, std::nullopt, constant(0.02));
  EXPECT_LT(study.outcome->waiting_quarters[3], 2 * 256);
  EXPECT_FALSE(study.stable);
}

TEST(ServiceStudy, SaturationIsThatOfWholeRequests) {
  ServiceSetup setup;
  setup.limits.sequences = 8;
  std::vector<ServiceRequest> requests = waiting_requests(100, 10, 50);
  const double whole = *saturation_rate(requests, setup, constant(0.02));
  for (std::size_t i = 0; i < 8; ++i) requests[i].output = static_cast<std::int64_t>(6 * (i + 1));
  setup.warmup_requests = 20;
  EXPECT_DOUBLE_EQ(*saturation_rate(requests, setup, constant(0.02)), whole);
}

TEST(ServiceStepTimes, InterpolateTheStepModel) {
  EngineSpec engine;
  engine.graph_rows = {1, 2, 4, 8, 16, 32, 64};
  engine.largest_prefill_graph = 64;
  engine.host.prepare_s = 1e-4;
  engine.tpot_interval = {0.1, 0.2};
  StepOperators operators;
  operators.layers = 10;
  operators.hidden = 1000;
  const auto add = [&](StepGroup group, std::function<double(const StepShape&)> seconds) {
    operators.operators.push_back({"made up", "made up", group, 10, std::move(seconds)});
  };
  add(StepGroup::gemm, [](const StepShape& s) { return 1e-5 + 1e-7 * s.rows; });
  add(StepGroup::head, [](const StepShape& s) { return 1e-6 * (s.decodes + s.prompts); });
  add(StepGroup::attention, [](const StepShape& s) { return 2e-9 * s.decodes * s.decode_kv; });
  add(StepGroup::attention, [](const StepShape& s) {
    return s.prompts == 0 ? 0 : 1e-10 * (s.context * s.context + 2 * s.context * s.prefix) / s.prompts;
  });
  // A window of 500: a prefix counts as far as it is seen.
  add(StepGroup::attention, [](const StepShape& s) {
    return s.prompts == 0 ? 0 : 1e-10 * s.context * std::min(500.0, (s.context / 2 + s.prefix) / s.prompts);
  });
  operators.operators.back().limited = true;
  add(StepGroup::communication, [](const StepShape& s) { return (s.prompts > 0 ? 3e-8 : 1e-8) * s.rows; });
  add(StepGroup::recurrent, [](const StepShape& s) { return s.prompts > 0 ? 0.0 : 3e-7 * s.rows; });
  add(StepGroup::recurrent,
      [](const StepShape& s) { return s.prompts > 0 ? 1e-7 * s.context + 1e-6 * (s.decodes + s.prompts) : 0.0; });
  DeviceLimits device;
  device.bandwidth = 1e12;
  device.peak_bf16 = 1e15;
  const auto model = std::make_shared<const StepModel>(operators, engine, Deployment{}, device);
  const ServiceStepTimes times(model, false);
  for (const ServiceStep& step :
       {ServiceStep{1, 100, 0, 0, 0, 0, false}, ServiceStep{37, 1234.5, 0, 0, 0, 0, false},
        ServiceStep{0, 0, 777, 1, 3000, 777, false}, ServiceStep{200, 5000, 3000, 7, 900, 1000, true}}) {
    StepShape shape;
    shape.decodes = step.decodes;
    shape.decode_kv = step.context;
    shape.context = step.prefill_tokens;
    shape.prompts = step.prompts;
    shape.prefix = step.prefix;
    StepTerms terms;
    terms.tokens = step.decodes + step.prefill_tokens;
    terms.launch = model->launch_of(terms.tokens, step.prompts > 0);
    terms.after_idle = step.after_idle;
    shape.rows = shape.expert_rows = model->padded(terms.tokens);
    terms.kernels_s = sum(model->times(shape));
    const double exact = model->cost(terms).seconds;
    EXPECT_NEAR(times.seconds(step, IntervalEnd::middle), exact, kGridTolerance * exact);
    EXPECT_LE(times.seconds(step, IntervalEnd::low), exact * std::exp(-0.1) * (1 + kGridTolerance));
    EXPECT_GE(times.seconds(step, IntervalEnd::high), exact * std::exp(0.2) * (1 - kGridTolerance));
  }
}

TEST(ServiceStepTimes, TheLawOfServicesAddsDecodesAndPrompts) {
  EngineSpec engine;
  engine.service = {0.9, 2e-5, 5e-4, 0.8, 1.1, 0, 3e-6};
  StepOperators operators;
  operators.layers = operators.moe_layers = 10;
  operators.operators.push_back(
      {"made up", "made up", StepGroup::gemm, 10, [](const StepShape& s) { return 1e-6 * s.rows; }});
  Deployment deployment;
  deployment.dp = 2;
  const ServiceStepTimes times(std::make_shared<const StepModel>(operators, engine, deployment, DeviceLimits{}), false,
                               StepLaw::service);
  const double fixed = 10 * 2e-5 + 5e-4;
  // Eight sequences on two ranks: four rows of 10 us.
  EXPECT_NEAR(times.seconds({8, 100, 0, 0, 0, 0, false}, IntervalEnd::middle), fixed + 0.9 * 4e-5 + 4 * 3e-6, 1e-9);
  // A prompt of 1024 tokens on one of them: the other waits.
  EXPECT_NEAR(times.seconds({0, 0, 1024, 1, 0, 1024, false}, IntervalEnd::middle), fixed + 1.1 * 1.024e-2, 1e-5);
  EXPECT_NEAR(times.seconds({8, 100, 1024, 1, 0, 1024, false}, IntervalEnd::middle),
              fixed + 0.9 * 4e-5 + 4 * 3e-6 + 0.8 * 1.024e-2, 1e-5);
}

TEST(ServiceStepTimes, AStepThatGeneratesReadsTheWeightsOfItsPromptsOnce) {
  EngineSpec engine;
  engine.service = {1, 0, 0, 1, 1, 0};
  StepOperators operators;
  operators.layers = 1;
  operators.operators.push_back(
      {"made up", "made up", StepGroup::gemm, 1, [](const StepShape& s) { return 4e-3 + 1e-6 * s.rows; }});
  const auto seconds = [&](bool mixes, const ServiceStep& step) {
    engine.mixes_prompts = mixes;
    return ServiceStepTimes(std::make_shared<const StepModel>(operators, engine, Deployment{}, DeviceLimits{}), false,
                            StepLaw::service)
        .seconds(step, IntervalEnd::middle);
  };
  const ServiceStep mixed{8, 100, 1024, 1, 0, 1024, false};
  EXPECT_NEAR(seconds(true, mixed), 4e-3 + 1.032e-3, 1e-5);
  EXPECT_NEAR(seconds(false, mixed), 8e-3 + 1.032e-3, 1e-5);
  EXPECT_NEAR(seconds(true, {0, 0, 1024, 1, 0, 1024, false}), 4e-3 + 1.024e-3, 1e-5);
}

TEST(StepOperators, ALayerWithoutExpertsLaunchesFewerSmallKernels) {
  StepOperators operators;
  operators.layers = 24;
  operators.moe_layers = 10;
  EXPECT_NEAR(operators.launching_layers(), 10 + 14 * 5.0 / 7, 1e-12);
}

class RecordedRequests : public testing::Test {
 protected:
  static std::vector<ServiceRequest> read(const std::string& text) {
    const std::string path = testing::TempDir() + "/service_requests_" + std::to_string(getpid()) + ".csv";
    std::ofstream(path, std::ios::binary) << text;
    return read_requests(path);
  }
  static std::string problem(const std::string& text) {
    try {
      read(text);
    } catch (const InputError& error) {
      return error.what();
    }
    return "none";
  }
};

TEST_F(RecordedRequests, AreReadByTheNamesOfTheirColumns) {
  const std::vector<ServiceRequest> requests =
      read("id,output_tokens,arrival_s,prompt_tokens\na,5,0,100\nb,7,0.5,200\n");
  ASSERT_EQ(requests.size(), 2);
  EXPECT_EQ(requests[1].arrival_s, 0.5);
  EXPECT_EQ(requests[1].prompt, 200);
  EXPECT_EQ(requests[1].output, 7);
}

TEST_F(RecordedRequests, HostileFilesAreRefusedWithTheirLine) {
  const std::string header = "arrival_s,prompt_tokens,output_tokens\n";
  for (const char* row : {"-1,10,10", "nan,10,10", "inf,10,10", "1e300,10,10", "x,10,10", ",10,10", "0,0,10", "0,-5,10",
                          "0,1.5,10", "0,10,0", "0,10,1e30", "0,10", "0,10,10,10", "0,10,\x1b[2J", "0,10,ten"}) {
    EXPECT_THAT(problem(header + "0,10,10\n" + row + "\n"), HasSubstr(":3")) << row;
  }
  EXPECT_THAT(problem(header + "1,10,10\n0.5,10,10\n"), HasSubstr(":3"));
  EXPECT_THAT(problem(header), HasSubstr("holds no row"));
  EXPECT_THAT(problem(""), HasSubstr("holds no row"));
  EXPECT_THAT(problem("arrival_s,prompt_tokens\n0,1\n"), HasSubstr("output_tokens"));
  EXPECT_THAT(problem("arrival_s,prompt_tokens,output_tokens,arrival_s\n0,1,1,5\n"), HasSubstr("arrival_s twice"));
  EXPECT_THROW(read_requests("/nowhere/at/all.csv"), InputError);
}

TEST(PoissonRequests, ComeAtTheirRateAndInOrder) {
  const std::vector<ServiceRequest> requests = poisson_requests(8, 100'000, 10, 20, 1);
  EXPECT_NEAR(100'000 / requests.back().arrival_s, 8, 0.1);
  EXPECT_TRUE(std::ranges::is_sorted(requests, {}, &ServiceRequest::arrival_s));
  for (const double rate : {0.0, -1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    EXPECT_THROW(poisson_requests(rate, 10, 10, 10, 1), UsageError);
  }
  EXPECT_THROW(poisson_requests(1, 10, 0, 10, 1), UsageError);
}

}  // namespace
}  // namespace moecast
