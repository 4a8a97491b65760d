#include "sim/step/service_simulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "sim/step/service_arrivals.h"
#include "tests/support/made_up_service.h"

namespace moecast {
namespace {

using testing::HasSubstr;

/// Means over a few hundred thousand requests scatter less.
constexpr double kQueueTolerance = 0.02;
constexpr double kLittleTolerance = 0.01;

double mean_wait(const ServiceOutcome& outcome) { return outcome.wait.mean; }

void expect_little_and_conservation(std::span<const ServiceRequest> requests, const ServiceOutcome& outcome) {
  ASSERT_EQ(outcome.jobs.size(), requests.size());
  double residence = 0;
  std::int64_t prompts = 0;
  std::int64_t outputs = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const ServiceJob& job = outcome.jobs[i];
    EXPECT_EQ(job.generated, requests[i].output);
    EXPECT_EQ(job.blocks, 0);
    EXPECT_GE(job.started_s, job.arrival_s);
    EXPECT_GT(job.first_token_s, job.started_s);
    EXPECT_GE(job.finished_s, job.first_token_s);
    residence += job.finished_s - job.arrival_s;
    prompts += requests[i].prompt;
    outputs += requests[i].output;
  }
  const auto count = static_cast<double>(requests.size());
  // L = lambda W.
  EXPECT_NEAR(outcome.whole_run_in_flight_mean, count / outcome.duration_s * (residence / count),
              kLittleTolerance * outcome.whole_run_in_flight_mean);
  EXPECT_EQ(outcome.counts.generated_tokens, outputs);
  EXPECT_GE(outcome.counts.prefilled_tokens + outcome.counts.cached_tokens, prompts);
  if (outcome.counts.preemptions == 0) {
    EXPECT_EQ(outcome.counts.prefilled_tokens + outcome.counts.cached_tokens, prompts);
    EXPECT_EQ(outcome.counts.recomputed_tokens, 0);
  }
}

TEST(ServiceSimulation, SequencesGoOnByTheGuessesThatAreRightAndOneMore) {
  const ServiceRequest request{0, 100, 10};
  const auto steps = [&](int tokens, double acceptance) {
    ServiceSetup setup = single_server();
    setup.limits.guesses = {tokens, acceptance, 7};
    const ServiceOutcome outcome = simulate_service({&request, 1}, setup, constant(1));
    EXPECT_EQ(outcome.jobs[0].generated, 10);
    return outcome.duration_s;
  };
  // The prompt's step makes one token, nine are to come.
  EXPECT_EQ(steps(0, 0), 10);
  EXPECT_EQ(steps(3, 0), 10);
  EXPECT_EQ(steps(2, 1), 4);
  EXPECT_EQ(steps(3, 1), 4) << "4 + 4 + 1";
  EXPECT_EQ(steps(64, 1), 2) << "none beyond the last one that is wanted";
}

TEST(ServiceSimulation, GuessesKeepLittlesLawAndTheCacheWhereItIsFull) {
  const std::vector<ServiceRequest> requests = poisson_requests(30, 4000, 60, 40, 3);
  ServiceSetup setup = single_server();
  setup.limits.sequences = 32;
  setup.limits.batched_tokens = 128;
  setup.limits.block_tokens = 16;
  setup.limits.kv_blocks = 40;
  setup.limits.guesses = {3, 0.7, 5};
  std::int64_t most = 0;
  const ServiceOutcome outcome = simulate_service(requests, setup, [&](const ServiceStep& step) {
    most = std::max(most, static_cast<std::int64_t>(step.decodes));
    return 0.015;
  });
  EXPECT_GT(outcome.counts.preemptions, 0);
  EXPECT_LE(outcome.counts.most_blocks, 40);
  EXPECT_LE(most * 4, 128 + 3) << "guesses count as tokens of a step";
  expect_little_and_conservation(requests, outcome);
  EXPECT_EQ(simulate_service(requests, setup, constant(0.015)).counts.steps, outcome.counts.steps) << "seeded";
}

class DeterministicServer : public testing::TestWithParam<double> {};

TEST_P(DeterministicServer, WaitsAsTheClosedFormOfMD1_C8) {
  const double load = GetParam();
  const double service = 0.02;
  const std::vector<ServiceRequest> requests = poisson_requests(load / service, 600'000, 100, 1, 11);
  ServiceSetup setup = single_server();
  setup.warmup_requests = 10'000;
  const ServiceOutcome outcome = simulate_service(requests, setup, constant(service));
  // Pollaczek-Khinchine without variance: rho / (2 mu (1 - rho)).
  const double expected = load * service / (2 * (1 - load));
  EXPECT_NEAR(mean_wait(outcome), expected, kQueueTolerance * expected);
  EXPECT_NEAR(outcome.utilisation_ratio, load, kQueueTolerance * load);
  EXPECT_LE(outcome.wait.p50, outcome.wait.p95);
  EXPECT_LE(outcome.wait.p95, outcome.wait.p99);
  EXPECT_NEAR(outcome.ttft.mean, expected + service, kQueueTolerance * (expected + service));
  expect_little_and_conservation(requests, outcome);
}
INSTANTIATE_TEST_SUITE_P(Loads, DeterministicServer, testing::Values(0.3, 0.6, 0.8));

TEST(ServiceRequests, LengthsAreDrawnEvenlyAroundWhatWasAsked) {
  std::vector<ServiceRequest> requests = waiting_requests(20'000, 1000, 200);
  draw_lengths(requests, 0.2, 3);
  double prompts = 0;
  std::int64_t least = 1000, most = 200;
  for (const ServiceRequest& request : requests) {
    prompts += static_cast<double>(request.prompt) / 20'000;
    least = std::min(least, request.prompt);
    most = std::max(most, request.output);
  }
  EXPECT_NEAR(prompts, 1000, 3);
  EXPECT_NEAR(static_cast<double>(least), 800, 2);
  EXPECT_NEAR(static_cast<double>(most), 240, 1);
  std::vector<ServiceRequest> again = waiting_requests(20'000, 1000, 200);
  draw_lengths(again, 0.2, 3);
  EXPECT_EQ(again[17].output, requests[17].output);
  std::vector<ServiceRequest> all = waiting_requests(1000, 1, 1);
  draw_lengths(all, 1, 3);
  for (const ServiceRequest& request : all) EXPECT_GE(std::min(request.prompt, request.output), 1);
  EXPECT_THROW(draw_lengths(all, 1.5, 3), UsageError);
  EXPECT_THROW(draw_lengths(all, -0.1, 3), UsageError);
}

TEST(ServiceSimulation, UrgentRequestsWaitAsTheClosedFormOfPriorities_D2) {
  const double load = 0.8;
  const double share = 0.3;
  const double service = 0.02;
  std::vector<ServiceRequest> requests = poisson_requests(load / service, 600'000, 100, 1, 11);
  ServiceSetup setup = single_server();
  setup.warmup_requests = 10'000;
  const ServiceOutcome equal = simulate_service(requests, setup, constant(service));
  EXPECT_TRUE(equal.classes.empty());
  draw_urgent(requests, share, 5);
  const ServiceOutcome outcome = simulate_service(requests, setup, constant(service));
  ASSERT_EQ(outcome.classes.size(), 2U);
  const ServiceClass& urgent = outcome.classes[0];
  const ServiceClass& others = outcome.classes[1];
  EXPECT_EQ(urgent.priority, 1);
  EXPECT_EQ(urgent.requests + others.requests, outcome.measured);
  EXPECT_NEAR(static_cast<double>(urgent.requests) / static_cast<double>(outcome.measured), share, 0.005);
  // Cobham, who is served is not interrupted: rho S / 2 / (1 - rho_urgent), and that over 1 - rho.
  const double first = load * service / 2 / (1 - share * load);
  EXPECT_NEAR(urgent.ttft.mean - service, first, kQueueTolerance * first);
  EXPECT_NEAR(others.ttft.mean - service, first / (1 - load), kQueueTolerance * first / (1 - load));
  EXPECT_LT(urgent.ttft.p99, 0.5 * equal.ttft.p99) << "the P99 of urgent requests falls";
  EXPECT_GT(others.ttft.p99, equal.ttft.p99);
  // Who goes first does not change how much is waited in all, but for those who come when the warm-up ends.
  EXPECT_NEAR(outcome.wait.mean, equal.wait.mean, 1e-3 * equal.wait.mean);
}

TEST(ServiceSimulation, TheLatestOfTheLowestPriorityIsThrownOut_D2) {
  // Two prompts of 31 tokens take 4 of 5 blocks of 16; then both grow into a third. The urgent one came last.
  std::vector<ServiceRequest> requests{{0, 31, 40}, {0, 31, 40}};
  requests[1].priority = 1;
  ServiceSetup setup;
  setup.limits.kv_blocks = 5;
  const ServiceOutcome outcome = simulate_service(requests, setup, made_up_step);
  EXPECT_GT(outcome.jobs[0].preemptions, 0);
  EXPECT_EQ(outcome.jobs[1].preemptions, 0);
  EXPECT_LT(outcome.jobs[1].finished_s, outcome.jobs[0].finished_s);
  expect_little_and_conservation(requests, outcome);
}

TEST(ServiceSimulation, ARequestAloneTakesItsSteps) {
  const ServiceRequest request{2, 1000, 5};
  const ServiceOutcome outcome = simulate_service({&request, 1}, {}, made_up_step);
  // 10 ms + 1000 x 20 us; then four steps of 10.01 ms.
  EXPECT_NEAR(outcome.ttft.p50, 0.03, 1e-12);
  EXPECT_NEAR(outcome.tpot->p50, 0.01001, 1e-12);
  EXPECT_NEAR(outcome.end_to_end.p99, 0.03 + 4 * 0.01001, 1e-12);
  EXPECT_EQ(outcome.counts.steps, 5);
  EXPECT_EQ(outcome.kv_mean_ratio, std::nullopt);
  EXPECT_EQ(outcome.met_ratio, std::nullopt);
  EXPECT_FALSE(outcome.steady);
}

TEST(ServiceSimulation, AnOutputOfOneTokenHasNoTimeOfAnOutputToken) {
  const ServiceRequest request{0, 10, 1};
  EXPECT_EQ(simulate_service({&request, 1}, {}, made_up_step).tpot, std::nullopt);
}

TEST(ServiceSimulation, WhatComesBeforeTheEngineIsAddedOnce) {
  const ServiceRequest request{2, 1000, 5};
  ServiceSetup setup;
  setup.front_s = 0.5;
  const ServiceOutcome outcome = simulate_service({&request, 1}, setup, made_up_step);
  EXPECT_NEAR(outcome.ttft.p50, 0.53, 1e-12);
  EXPECT_NEAR(outcome.tpot->p50, 0.01001, 1e-12);
  EXPECT_NEAR(outcome.wait.p50, 0, 1e-12);
}

TEST(ServiceSimulation, DecodesAndChunksOfPromptsShareAStep) {
  // The second prompt of 250 tokens is computed in chunks of 99, 99, 52 beside the first one's decodes.
  const std::vector<ServiceRequest> requests{{0, 50, 100}, {0.02, 250, 2}};
  ServiceSetup setup;
  setup.limits.batched_tokens = 100;
  setup.limits.chunk_tokens = 100;
  std::vector<ServiceStep> steps;
  const ServiceOutcome outcome = simulate_service(requests, setup, [&](const ServiceStep& step) {
    steps.push_back(step);
    return made_up_step(step);
  });
  std::vector<double> chunks;
  for (const ServiceStep& step : steps) {
    EXPECT_LE(step.decodes + step.prefill_tokens, 100);
    if (step.prompts == 0 || step.decodes == 0) continue;
    chunks.push_back(step.prefill_tokens);
    EXPECT_EQ(step.prefix, chunks.size() == 1 ? 0 : 99 * static_cast<double>(chunks.size() - 1));
  }
  EXPECT_THAT(chunks, testing::ElementsAre(99, 99, 52));
  expect_little_and_conservation(requests, outcome);
}

TEST(ServiceSimulation, BatchesServeMoreThanOneAfterTheOther) {
  const std::vector<ServiceRequest> requests = waiting_requests(64, 100, 50);
  ServiceSetup batched;
  const ServiceOutcome together = simulate_service(requests, batched, made_up_step);
  const ServiceOutcome apart = simulate_service(requests, single_server(), made_up_step);
  EXPECT_GT(together.output_tokens_per_s, 10 * apart.output_tokens_per_s);
  expect_little_and_conservation(requests, together);
  expect_little_and_conservation(requests, apart);
}

TEST(ServiceSimulation, AFullCachePreemptsTheLatestAndEverythingStillEnds) {
  std::vector<ServiceRequest> requests = poisson_requests(30, 400, 64, 64, 3);
  ServiceSetup setup;
  setup.limits.kv_blocks = 40;  // 640 tokens: five requests of 128
  const ServiceOutcome outcome = simulate_service(requests, setup, made_up_step);
  EXPECT_GT(outcome.counts.preemptions, 0);
  EXPECT_GT(outcome.counts.recomputed_tokens, 0);
  EXPECT_LE(*outcome.kv_most_ratio, 1);
  EXPECT_GT(*outcome.kv_most_ratio, 0.9);
  expect_little_and_conservation(requests, outcome);
  // The first to come is never the latest.
  EXPECT_EQ(outcome.jobs.front().preemptions, 0);
}

TEST(ServiceSimulation, CachesAreTakenInWholeBlocks_C22) {
  // One token beyond a block: at most (block - 1) tokens are wasted.
  const ServiceRequest request{0, 33, 1};
  ServiceSetup setup;
  setup.limits.kv_blocks = 100;
  const ServiceOutcome outcome = simulate_service({&request, 1}, setup, made_up_step);
  EXPECT_EQ(outcome.counts.most_blocks, 3);
  for (std::int64_t entries = 1; entries < 200; ++entries) {
    const std::int64_t waste = setup.limits.blocks_of(entries) * 16 - entries;
    EXPECT_GE(waste, 0);
    EXPECT_LE(waste, 15);
  }
}

TEST(ServiceSimulation, ASharedPrefixIsComputedAndHeldOnce_C22) {
  // The first request leaves 512 tokens behind; nine that come later find them.
  std::vector<ServiceRequest> requests = waiting_requests(10, 600, 10);
  for (std::size_t i = 1; i < requests.size(); ++i) requests[i].arrival_s = 1;
  ServiceSetup setup;
  setup.limits.kv_blocks = 1000;
  const ServiceOutcome apart = simulate_service(requests, setup, made_up_step);
  setup.limits.shared_prefix = 520;  // whole blocks: 512
  const ServiceOutcome shared = simulate_service(requests, setup, made_up_step);
  EXPECT_EQ(shared.counts.cached_tokens, 9 * 512);
  EXPECT_EQ(shared.counts.prefilled_tokens, 600 + 9 * 88);
  // 610 tokens: 39 blocks each, of these 32 once.
  EXPECT_EQ(apart.counts.most_blocks, 9 * 39);
  EXPECT_EQ(shared.counts.most_blocks, 32 + 9 * 7);
  EXPECT_LT(shared.ttft.p90, apart.ttft.p90);
  expect_little_and_conservation(requests, shared);
}

TEST(ServiceSimulation, MixedWorkloadsAreServedInTheOrderOfArrival_C21) {
  std::vector<ServiceRequest> requests = poisson_requests(5, 300, 100, 20, 9);
  for (std::size_t i = 0; i < requests.size(); i += 3) requests[i] = {requests[i].arrival_s, 4000, 300};
  const ServiceOutcome outcome = simulate_service(requests, {}, made_up_step);
  expect_little_and_conservation(requests, outcome);
  for (std::size_t i = 1; i < requests.size(); ++i) {
    EXPECT_GE(outcome.jobs[i].started_s, outcome.jobs[i - 1].started_s);
  }
}

TEST(ServiceSimulation, APrefillServiceOfItsOwnAddsTheTransfer) {
  const ServiceRequest request{0, 1000, 5};
  ServiceSetup setup;
  setup.split = ServiceSplit{1, 1, 1e9, 1e5, 5e7};
  const ServiceOutcome apart = simulate_service({&request, 1}, setup, made_up_step);
  // 1000 x 100 kB and 50 MB of state over 1 GB/s = 150 ms between the first and the second token.
  EXPECT_NEAR(*apart.transfer_mean_s, 0.15, 1e-12);
  EXPECT_NEAR(apart.ttft.p50, 0.03, 1e-12);
  EXPECT_NEAR(apart.end_to_end.p50, 0.03 + 0.15 + 4 * 0.01001, 1e-12);
  expect_little_and_conservation({&request, 1}, apart);
}

TEST(ServiceSimulation, ApartPromptsNeverStallDecodes) {
  const std::vector<ServiceRequest> requests = poisson_requests(10, 500, 2000, 50, 5);
  ServiceSetup setup;
  setup.limits.kv_blocks = 4000;
  const ServiceOutcome together = simulate_service(requests, setup, made_up_step);
  setup.split = ServiceSplit{1, 1, 50e9, 1e5, 0};
  const ServiceOutcome apart = simulate_service(requests, setup, [](const ServiceStep& step) {
    EXPECT_TRUE(step.decodes == 0 || step.prompts == 0);
    return made_up_step(step);
  });
  EXPECT_LT(apart.tpot->p99, together.tpot->p50);
  expect_little_and_conservation(requests, together);
  expect_little_and_conservation(requests, apart);
}

TEST(ServiceSimulation, InstancesShareTheRequests) {
  const std::vector<ServiceRequest> requests = poisson_requests(90, 20'000, 100, 1, 5);
  ServiceSetup setup = single_server();
  setup.instances = 2;
  const ServiceOutcome outcome = simulate_service(requests, setup, constant(0.02));
  EXPECT_NEAR(outcome.utilisation_ratio, 0.9, 0.02);
  expect_little_and_conservation(requests, outcome);
}

TEST(ServiceSimulation, ClientsWaitForTheirAnswers) {
  const std::vector<ServiceRequest> requests = waiting_requests(200, 100, 20);
  ServiceSetup setup;
  setup.clients = 8;
  const ServiceOutcome outcome = simulate_service(requests, setup, made_up_step);
  EXPECT_LE(outcome.in_flight_mean, 8);
  EXPECT_GT(outcome.in_flight_mean, 7.5);
  EXPECT_EQ(outcome.counts.most_running, 8);
  expect_little_and_conservation(requests, outcome);
}

TEST(ServiceSimulation, GoalsCountTheRequestsThatMeetBoth) {
  const std::vector<ServiceRequest> requests = poisson_requests(20, 2000, 100, 20, 5);
  ServiceSetup setup;
  const ServiceOutcome free = simulate_service(requests, setup, made_up_step);
  setup.ttft_goal_s = free.ttft.p90;
  setup.tpot_goal_s = free.tpot->p90;
  const ServiceOutcome bound = simulate_service(requests, setup, made_up_step);
  EXPECT_GE(*bound.met_ratio, 0.8 - 1e-3);
  EXPECT_LE(*bound.met_ratio, 0.9 + 1e-3);
}

TEST(ServiceSimulation, EqualSeedsGiveEqualOutcomes) {
  const auto run = [](std::uint64_t seed) {
    const std::vector<ServiceRequest> requests = poisson_requests(40, 500, 100, 20, seed);
    return simulate_service(requests, {}, made_up_step).end_to_end.mean;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(ServiceSimulation, StopsWhenAsked) {
  const std::atomic<bool> stop{true};
  ServiceSetup setup;
  setup.stop = &stop;
  EXPECT_TRUE(simulate_service(waiting_requests(1000, 10, 1000), setup, constant(1e-3)).stopped);
}

TEST(ServiceSimulation, RefusesWhatIsNoLoad) {
  const auto problem = [](std::vector<ServiceRequest> requests, const ServiceSetup& setup) -> std::string {
    try {
      simulate_service(requests, setup, made_up_step);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(problem({}, {}), HasSubstr("there is none"));
  EXPECT_THAT(problem({{0, 0, 1}}, {}), HasSubstr("request 1"));
  EXPECT_THAT(problem({{0, 1, 0}}, {}), HasSubstr("request 1"));
  EXPECT_THAT(problem({{1, 1, 1}, {0.5, 1, 1}}, {}), HasSubstr("request 2"));
  EXPECT_THAT(problem({{NAN, 1, 1}}, {}), HasSubstr("request 1"));
  EXPECT_THAT(problem({{-1, 1, 1}}, {}), HasSubstr("request 1"));
  ServiceSetup small;
  small.limits.kv_blocks = 2;
  EXPECT_THAT(problem({{0, 33, 1}}, small), HasSubstr("needs 3 blocks"));
  const ServiceRequest request{0, 1, 1};
  EXPECT_THROW(simulate_service({&request, 1}, {}, constant(0)), InputError);
  EXPECT_THROW(simulate_service({&request, 1}, {}, constant(INFINITY)), InputError);
}

}  // namespace
}  // namespace moecast
