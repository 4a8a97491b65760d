// What a load of experts does to a step of an engine on GPUs.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "models/routing/assignment.h"
#include "models/routing/load.h"
#include "models/routing/metrics.h"
#include "tests/support/balancing_loss.h"
#include "tests/support/h200_machine.h"

namespace moecast {
namespace {

double prompts_s(const ExpertLoad& load, int ep = 8) {
  Deployment d;
  d.tp = 8;
  d.ep = ep;
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = 4096;
  w.load = load;
  return h200_analytic().predict(zoo_model("qwen3-235b-a22b"), d, w).latency->value();
}

ExpertLoad law(LoadKind kind, double parameter) {
  ExpertLoad load;
  load.kind = kind;
  load.parameter = parameter;
  return load;
}

/// Of so many experts in a row the same weight, of all others none.
ExpertLoad hot(std::size_t first, std::size_t count, std::size_t step = 1) {
  ExpertLoad load;
  load.kind = LoadKind::histogram;
  load.histogram.assign(128, 0.0);
  for (std::size_t i = 0; i < count; ++i) load.histogram[first + i * step] = 1;
  return load;
}

TEST(ExpertLoadOnGpus, MoreSkewNeverTakesLess) {
  const double even = prompts_s({});
  double before = even;
  for (const double sigma : {0.1, 0.5, 1.0, 2.0, 3.0}) {
    const double seconds = prompts_s(law(LoadKind::log_normal, sigma));
    EXPECT_GT(seconds, before * 0.999) << sigma;
    before = seconds;
  }
  EXPECT_LT(prompts_s(law(LoadKind::log_normal, 0.1)), 1.06 * even) << "nearly even";
  EXPECT_GT(prompts_s(law(LoadKind::zipf, 3)), prompts_s(law(LoadKind::zipf, 0.5)));
}

TEST(ExpertLoadOnGpus, ARecordedLoadIsThatOfItsRanks) {
  // All tokens on the sixteen experts of one rank, against two on each of eight.
  const double one_rank = prompts_s(hot(0, 16));
  const double spread = prompts_s(hot(0, 16, 8));
  EXPECT_GT(one_rank, 1.5 * spread);
  EXPECT_GT(one_rank, 1.5 * prompts_s({}));
  EXPECT_NEAR(prompts_s(hot(112, 16)) / one_rank, 1, 1e-6) << "whichever rank it is";
  // Without expert parallelism all ranks hold a part of every expert: nobody waits.
  EXPECT_LT(prompts_s(hot(0, 16), 1), 1.05 * prompts_s(hot(0, 16, 8), 1));
}

/// A trace of tokens that chose eight of 128 experts, as a load.
ExpertLoad load_of(const Assignment& trace) {
  ExpertLoad load;
  load.kind = LoadKind::histogram;
  for (const std::int64_t rows : trace.rows_per_expert()) load.histogram.push_back(static_cast<double>(rows));
  return load;
}

Assignment drawn(RoutingPolicy policy, const std::vector<double>& popularity) {
  policy.top_k = 8;
  Router router(policy, popularity);
  Random random(1);
  Assignment trace;
  router.draw(4096, random, trace);
  return trace;
}

TEST(ExpertLoadOnGpus, FourRemediesFlattenASkewedTraceAndShortenTheStep_B14) {
  const std::vector<double> popularity = expert_popularity(law(LoadKind::zipf, 1), 128);
  const Assignment plain = drawn({}, popularity);
  Assignment capped = plain;
  limit_assignment(capped, 4096 * 8 / 128 * 5 / 4, CapacityOverflow::drop, popularity);
  RoutingPolicy choice;
  choice.kind = RoutingPolicyKind::expert_choice;
  RoutingPolicy noisy;
  noisy.noise = RoutingNoise::gaussian;
  noisy.noise_strength = 2;
  const std::vector<std::pair<const char*, ExpertLoad>> remedies{
      {"capacity", load_of(capped)},
      {"experts choose", load_of(drawn(choice, popularity))},
      {"noise", load_of(drawn(noisy, popularity))},
      {"balancing loss", load_of(drawn({}, after_balancing_loss(popularity, 8, 80, 4)))}};
  const double before = load_metrics(load_of(plain).histogram).max_over_mean;
  const double slow = prompts_s(load_of(plain));
  for (const auto& [name, load] : remedies) {
    EXPECT_LT(load_metrics(load.histogram).max_over_mean, before) << name;
    // Measured on this machine, a skew costs a fifth or more of the experts' time on eight ranks: what removes most of
    // it shortens the whole step by more than a twentieth.
    EXPECT_LT(prompts_s(load), 0.95 * slow) << name;
  }
}

}  // namespace
}  // namespace moecast
