// The closed law of a service: by hand, and beside the simulation of the same requests.
#include "sim/step/service_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "sim/step/service_arrivals.h"
#include "sim/step/service_fit.h"
#include "sim/step/service_simulation.h"

namespace moecast {
namespace {

const EngineService kLaw{1, 1e-5, 1e-3, 1, 1, 2e-3};
constexpr double kStep = 0.010 + 10 * 1e-5 + 1e-3;

/// A step of 10 ms, a prompt of 100 ms, ten layers with experts, outputs of 100 tokens.
ServiceTerms terms_of(double requests) { return {0.010, 0.100, 10, 10, requests, 100}; }

TEST(ServiceModel, ARequestThatIsAloneWaitsForNobody) {
  ServiceTerms terms = terms_of(1);
  EXPECT_NEAR(service_times(terms, kLaw).tpot_s, kStep, 1e-12);
  EXPECT_NEAR(service_times(terms, kLaw).ttft_s, 2e-3 + 0.100 + kStep, 1e-12);
  terms.moe_layers = 0;
  EXPECT_NEAR(service_times(terms, kLaw).ttft_s, 2e-3 / 4 + 0.100 + kStep, 1e-12);
  terms.wait_steps = 20;
  EXPECT_NEAR(service_times(terms, kLaw).ttft_s, 2e-3 / 4 + 0.100 + kStep, 1e-12) << "schedulers wait beside others";
}

TEST(ServiceModel, AWaitingSchedulerDelaysFirstTokensAlone) {
  ServiceTerms terms = terms_of(2);
  const ServiceTimes before = service_times(terms, kLaw);
  terms.wait_steps = 20;
  const ServiceTimes after = service_times(terms, kLaw);
  EXPECT_NEAR(after.ttft_s - before.ttft_s, 20 * after.tpot_s, 0.1 * after.tpot_s);
  EXPECT_LE(after.tpot_s, before.tpot_s);
}

TEST(ServiceModel, ATokenPaysForThePromptsOfThoseThatGenerateBesideIt) {
  const ServiceTimes times = service_times(terms_of(11), kLaw);
  const double prompts_a_second = 10 / (times.ttft_s + 99 * times.tpot_s);  // of others
  EXPECT_NEAR(times.tpot_s, kStep + prompts_a_second * times.tpot_s * 0.100, 1e-9);
  EXPECT_NEAR(times.generating, 99 * times.tpot_s / (times.ttft_s + 99 * times.tpot_s), 1e-9);
  EXPECT_LT(times.generating, 1);
  EXPECT_GT(times.generating, 0.8);
}

TEST(ServiceModel, FewerDecodeThanAreInFlight) {
  ServiceTerms terms = terms_of(11);
  const double before = service_times(terms, kLaw).tpot_s;
  terms.fewer = {{{6, 0.0075}, {1, 0.005}}};  // 0.5 ms a request
  EXPECT_LT(service_times(terms, kLaw).tpot_s, before);
  EXPECT_GT(service_times(terms, kLaw).tpot_s, before - 5e-4 * 10);
}

TEST(ServiceModel, GuessesThatAreRightShareTheStep) {
  ServiceTerms terms = terms_of(1);
  terms.tokens_a_step = 2.5;
  EXPECT_NEAR(service_times(terms, kLaw).tpot_s, kStep / 2.5, 1e-12);
  EXPECT_NEAR(service_times(terms, kLaw).ttft_s, 2e-3 + 0.100 + kStep, 1e-12) << "the first token is a whole step";
}

TEST(ServiceModel, TheFirstWaveWaitsForItself) {
  ServiceTerms terms = terms_of(41);
  const ServiceTimes steady = service_times(terms, kLaw);
  terms.burst = 0.1;
  // A tenth of the requests waits for 20 prompts and the steps that take them.
  EXPECT_NEAR(service_times(terms, kLaw).ttft_s, steady.ttft_s + 0.1 * 20 * (0.100 + kStep), 0.02 * steady.ttft_s);
}

TEST(ServiceModel, ASecondPromptInTheStepIsCheaper) {
  ServiceTerms terms = terms_of(64);
  terms.prompts.most = 8;
  const double dear = service_times(terms, kLaw).tpot_s;
  terms.prompts.further = terms.prompts.later = 0.2;
  EXPECT_LT(service_times(terms, kLaw).tpot_s, 0.9 * dear);
}

TEST(ServiceModel, WeightsThatAStepReadsAnywayStallNobody) {
  ServiceTerms terms = terms_of(11);
  const ServiceTimes apart = service_times(terms, kLaw);
  terms.shared_s = 0.040;
  const ServiceTimes times = service_times(terms, kLaw);
  const double prompts_a_second = 10 / (times.ttft_s + 99 * times.tpot_s);
  EXPECT_NEAR(times.tpot_s, kStep + prompts_a_second * times.tpot_s * 0.060, 1e-9);
  EXPECT_LT(times.tpot_s, apart.tpot_s);
}

TEST(ServiceModel, APromptOnAllReplicasSharesAsMuchAsThatOneDoes) {
  ServiceTerms terms = terms_of(64);
  terms.prompts = {8, 512, 0, 0.050, 4, 0.1, 0.1};
  terms.shared_s = 0.090;  // more than a prompt on all of them takes
  terms.prompts.shared_s = 0.045;
  const ServiceTimes shared = service_times(terms, kLaw);
  EXPECT_GE(shared.tpot_s, kStep) << "prompts never make a step shorter";
  EXPECT_GE(shared.ttft_s, kLaw.first_token_s + kStep);
  terms.shared_s = terms.prompts.shared_s = 0;
  EXPECT_GT(service_times(terms, kLaw).tpot_s, shared.tpot_s);
}

TEST(ServiceModel, TheSecondPromptOfAStepIsNotTheEighth) {
  PromptsTogether prompts;
  prompts.further = 0.1;
  prompts.later = 0.5;
  EXPECT_NEAR(prompts.of_several(1), 1, 1e-12);
  EXPECT_NEAR(prompts.of_several(1.5), 1.05, 1e-12);
  EXPECT_NEAR(prompts.of_several(8), 1.1 + 6 * 0.5, 1e-12);
}

TEST(ServiceModel, ARequestCostsTheHost) {
  EngineService law = kLaw;
  law.request_s = 1e-4;
  EXPECT_NEAR(service_times(terms_of(1), law).tpot_s, kStep + 1e-4, 1e-12);
  EXPECT_GT(service_times(terms_of(41), law).tpot_s, service_times(terms_of(41), kLaw).tpot_s + 30 * 1e-4);
}

TEST(ServiceModel, WhomTheCacheHasNoRoomForWaits_LittlesLaw) {
  ServiceTerms terms = terms_of(10);
  const ServiceTimes served = service_times(terms, kLaw);
  terms.queued = 30;
  const ServiceTimes queued = service_times(terms, kLaw);
  EXPECT_EQ(queued.tpot_s, served.tpot_s) << "who waits takes nothing of the others";
  const double cycle = served.ttft_s + 99 * served.tpot_s;
  EXPECT_NEAR((queued.ttft_s + 99 * queued.tpot_s) / 40, cycle / 10, 1e-9) << "as many requests a second";
}

TEST(ServiceModel, PromptsTakeTheirTimeHoweverShortOutputsAre) {
  for (const double requests : {8.0, 64.0, 512.0}) {
    for (const double output : {1.0, 2.0, 8.0, 64.0}) {
      ServiceTerms terms = terms_of(requests);
      terms.output = output;
      const ServiceTimes times = service_times(terms, kLaw);
      const double cycle = times.ttft_s + (output - 1) * times.tpot_s;
      EXPECT_GE(cycle, requests * 0.100) << requests << " " << output;
      EXPECT_LE(times.tpot_s, kStep + 0.100 + 1e-9) << "a token waits for one step";
      EXPECT_NEAR(times.generating, (output - 1) * times.tpot_s / cycle, 1e-6);
    }
  }
}

TEST(ServiceModel, MoreRequestsNeverMakeAFirstTokenEarlier) {
  for (const int replicas : {1, 8}) {
    for (const double hold : {0.0, 60.0}) {
      double last_ttft = 0;
      double last_tpot = 0;
      for (double in_flight = 64; in_flight <= 4096; in_flight *= 1.1) {
        ServiceTerms terms = terms_of(in_flight / replicas);
        terms.prompts = {replicas, in_flight, hold, 0.110, 4, 0.8, 0.8};
        const ServiceTimes times = service_times(terms, kLaw);
        // Replicas that fill sooner are held for less: the first tokens of few may be later than those of more.
        EXPECT_GE(times.ttft_s, (hold > 0 ? 0.8 : 1 - 1e-6) * last_ttft) << replicas << " " << in_flight;
        EXPECT_GE(times.tpot_s, last_tpot * (1 - 1e-6)) << replicas << " " << hold << " " << in_flight;
        last_ttft = times.ttft_s;
        last_tpot = times.tpot_s;
      }
    }
  }
}

/// 10 ms, 0.1 ms a decode, 20 us a token of a prompt.
double simulated_step(const ServiceStep& step) { return 0.01 + 1e-4 * step.decodes + 2e-5 * step.prefill_tokens; }

TEST(ServiceModel, IsTheSimulationWhereClientsAreOutOfStep) {
  struct Load {
    std::int64_t clients, prompt, output;
  };
  for (const Load& load : {Load{8, 1000, 200}, Load{32, 1000, 200}, Load{64, 500, 100}, Load{64, 100, 50}}) {
    std::vector<ServiceRequest> requests =
        waiting_requests(static_cast<std::size_t>(load.clients) * 40, load.prompt, load.output);
    draw_lengths(requests, 0.3, 7);
    for (std::int64_t i = 0; i < load.clients; ++i) {
      requests[static_cast<std::size_t>(i)].output = std::max<std::int64_t>(1, load.output * (i + 1) / load.clients);
    }
    ServiceSetup setup;
    setup.clients = load.clients;
    setup.front_s = 0.05;
    setup.warmup_requests = static_cast<std::size_t>(load.clients) * 8;
    const ServiceOutcome simulated = simulate_service(requests, setup, simulated_step);
    const auto b = static_cast<double>(load.clients);
    const double prompt_s = 2e-5 * static_cast<double>(load.prompt);
    ServiceTerms terms{0.01 + 1e-4 * b, prompt_s, 1, 1, b, static_cast<double>(load.output)};
    terms.fewer = {{{b / 2, 0.01 + 1e-4 * b / 2}, {1, 0.0101}}};
    terms.prompts.most = std::floor(8192 / static_cast<double>(load.prompt));
    const ServiceTimes law = service_times(terms, {1, 0, 0, 1, 1, 0.05});
    EXPECT_NEAR(law.tpot_s / simulated.tpot->mean, 1, 0.05) << load.clients << " " << load.prompt << " " << load.output;
    EXPECT_NEAR(law.ttft_s / simulated.ttft.mean, 1, 0.12) << load.clients << " " << load.prompt << " " << load.output;
  }
}

TEST(ServiceFit, FindsTheLawThatMadeTheRows) {
  const EngineService law{0.9, 4e-5, 4e-4, 1.1, 1.05, 0.18, 2e-5};
  std::vector<MeasuredService> rows;
  for (int i = 0; i < 300; ++i) {
    MeasuredService row;
    row.terms = {0.004 + 0.0001 * (i % 60), 0.02 + 0.01 * (i % 7), 20.0 + 20 * (i % 4), 20, 1.0 + i % 30,
                 100.0 + 100 * (i % 5)};
    row.engine = "made-up";
    const ServiceTimes times = service_times(row.terms, law);
    row.tpot_s = times.tpot_s;
    row.ttft_s = times.ttft_s;
    rows.push_back(row);
  }
  const EngineService found = fit_services(rows).at("made-up");
  double worst = 0;
  for (const MeasuredService& row : rows) {
    worst = std::max(worst, std::abs(service_times(row.terms, found).tpot_s / row.tpot_s - 1));
  }
  EXPECT_LT(worst, 0.05);
}

}  // namespace
}  // namespace moecast
