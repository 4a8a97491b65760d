// Balancing over steps: constant policies are the static result, schedules their mean, feedback evens out.
#include "models/routing/balancing.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/capacity.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

BalancingScenario scenario_of(double exponent, bool sampled = false, int experts = 32, int top_k = 4) {
  BalancingScenario scenario;
  scenario.popularity = expert_popularity({LoadKind::zipf, exponent, {}, 1}, experts);
  scenario.routing.top_k = top_k;
  scenario.tokens = 1024;
  scenario.placement = contiguous_placement(experts, 8);
  scenario.sampled = sampled;
  return scenario;
}

BalancingPolicy limited(double factor, Overflow overflow = Overflow::drop) {
  BalancingPolicy policy;
  policy.capacity.eval_factor = factor;
  policy.capacity.overflow = overflow;
  return policy;
}

/// Rows beyond the slots of one step, by hand.
double dropped_once(const BalancingScenario& scenario, double factor) {
  CapacitySpec capacity;
  capacity.eval_factor = factor;
  const auto slots = static_cast<double>(
      *capacity_slots(capacity, scenario.tokens, scenario.routing.top_k, std::ssize(scenario.popularity)));
  double over = 0;
  for (const double p : inclusion_probability(scenario.popularity, scenario.routing.top_k)) {
    over += std::max(0.0, p * static_cast<double>(scenario.tokens) - slots);
  }
  return over;
}

TEST(Balancing, AConstantPolicyIsTheStaticResult_C9) {
  const BalancingScenario scenario = scenario_of(1.0);
  BalancingSimulation simulation(limited(1.25), scenario);
  const double once = dropped_once(scenario, 1.25);
  ASSERT_GT(once, 100);
  for (int step = 0; step < 20; ++step) {
    const BalancingStep done = simulation.next();
    EXPECT_EQ(done.step, step);
    EXPECT_NEAR(done.dropped, once, 1e-9 * once);
    EXPECT_NEAR(done.asked, 4096, 1e-6);
    EXPECT_NEAR(done.kept + done.dropped, done.asked, 1e-6);
    EXPECT_EQ(done.moved_copies, 0);
  }
}

TEST(Balancing, DrawsOfAConstantPolicyHaveItsMean_C9) {
  BalancingSimulation simulation(limited(1.25), scenario_of(1.0, true));
  const double once = dropped_once(scenario_of(1.0), 1.25);
  double sum = 0;
  for (int step = 0; step < 200; ++step) sum += simulation.next().dropped / 200;
  EXPECT_NEAR(sum / once, 1, 0.01) << "Monte Carlo";
}

TEST(Balancing, AScheduleIsTheMeanOfItsPieces_C9) {
  const BalancingScenario scenario = scenario_of(1.0);
  BalancingPolicy policy;
  policy.schedule = {{10, 2.0}, {20, 1.25}, {5, 1.0}};  // large early, small late
  BalancingSimulation simulation(policy, scenario);
  double sum = 0;
  for (int step = 0; step < 40; ++step) {
    const BalancingStep done = simulation.next();
    EXPECT_EQ(done.capacity_factor, step < 10 ? 2.0 : step < 30 ? 1.25 : 1.0);
    sum += done.dropped;
  }
  const double pieces =
      10 * dropped_once(scenario, 2) + 20 * dropped_once(scenario, 1.25) + 10 * dropped_once(scenario, 1);
  EXPECT_NEAR(sum / pieces, 1, 1e-9) << "the last stage goes on";
  EXPECT_LT(dropped_once(scenario, 2), dropped_once(scenario, 1));
}

TEST(Balancing, WhatWaitsIsServedLaterAndNothingIsLost_C9) {
  BalancingScenario scenario = scenario_of(0.8, true);
  BalancingSimulation simulation(limited(1.25, Overflow::queue), scenario);
  double asked = 0;
  double kept = 0;
  BalancingStep last;
  for (int step = 0; step < 30; ++step) {
    last = simulation.next();
    asked += last.asked;
    kept += last.kept;
    EXPECT_EQ(last.dropped, 0);
    EXPECT_NEAR(asked, kept + last.waiting, 1e-6);
  }
  EXPECT_GT(last.waiting, 1000) << "an expert that is always full falls behind";
  BalancingPolicy bounded = limited(1.25, Overflow::queue);
  bounded.queue_rows = 50;
  BalancingSimulation short_queue(bounded, scenario);
  double dropped = 0;
  for (int step = 0; step < 30; ++step) {
    const BalancingStep done = short_queue.next();
    EXPECT_LE(done.waiting, 50 * 32);
    dropped += done.dropped;
  }
  EXPECT_GT(dropped, 0) << "the queue overflows";
}

TEST(Balancing, ABiasThatLearnsEvensOutTheLoad_C9) {
  BalancingPolicy policy;
  policy.bias_step = 0.01;
  BalancingSimulation simulation(policy, scenario_of(1.0, false, 128, 8));
  const double before = simulation.next().expert_max_over_mean;
  EXPECT_GT(before, 5);
  BalancingStep last;
  for (int step = 0; step < 800; ++step) last = simulation.next();
  // A step of 0.01 in ln(popularity) moves a load by 1 %: it goes to and fro around the mean, which moves as well.
  EXPECT_LT(last.expert_max_over_mean, 1.03);
  // The bias undoes the popularity: ln(128) between the first and the last of Zipf's law.
  EXPECT_NEAR(last.bias_range, std::log(128.0), 0.1);
  BalancingSimulation none({}, scenario_of(1.0, false, 128, 8));
  for (int step = 0; step < 5; ++step) EXPECT_EQ(none.next().expert_max_over_mean, before);
}

TEST(Balancing, PlacingAnewCostsMovesAndPaysOff_C9_D2) {
  BalancingScenario scenario = scenario_of(1.2);
  scenario.expert_bytes = 1e8;
  scenario.bytes_per_s = 50e9;
  BalancingPolicy policy;
  policy.rebalance_every = 4;
  policy.slots_per_rank = 5;
  BalancingSimulation simulation(policy, scenario);
  std::vector<BalancingStep> steps;
  for (int step = 0; step < 12; ++step) steps.push_back(simulation.next());
  for (const int at : {0, 1, 2, 4, 5, 6, 8}) EXPECT_EQ(steps[static_cast<std::size_t>(at)].moved_copies, 0) << at;
  EXPECT_GT(steps[3].moved_copies, 0);
  EXPECT_DOUBLE_EQ(*steps[3].moved_bytes, 1e8 * static_cast<double>(steps[3].moved_copies));
  EXPECT_GE(*steps[3].move_s, 1e8 * static_cast<double>(steps[3].moved_copies) / 8 / 50e9) << "at least an equal share";
  EXPECT_LT(steps[4].rank_max_over_mean, 0.6 * steps[3].rank_max_over_mean);
  EXPECT_EQ(steps[7].moved_copies, 0) << "a load that stays is not placed anew";
  BalancingScenario unknown = scenario;
  unknown.expert_bytes.reset();
  BalancingSimulation without(policy, unknown);
  for (int step = 0; step < 3; ++step) without.next();
  EXPECT_EQ(without.next().moved_bytes, std::nullopt) << "unknown, not nothing";
}

RC_GTEST_PROP(Balancing, PlacingAnewNeverRaisesTheFullestRank_D2, ()) {
  BalancingScenario scenario;
  const auto weights = *rc::gen::container<std::vector<int>>(16, rc::gen::inRange(1, 1000));
  scenario.popularity.assign(weights.begin(), weights.end());
  const double sum = std::accumulate(scenario.popularity.begin(), scenario.popularity.end(), 0.0);
  for (double& p : scenario.popularity) p /= sum;
  scenario.routing.top_k = 1;
  scenario.tokens = 1000;
  scenario.placement = round_robin_placement(16, 4);
  scenario.sampled = false;
  BalancingPolicy policy;
  policy.rebalance_every = 1;
  policy.slots_per_rank = *rc::gen::inRange(4, 7);
  BalancingSimulation simulation(policy, scenario);
  double before = simulation.next().rank_max_over_mean;
  for (int step = 0; step < 4; ++step) {
    const double now = simulation.next().rank_max_over_mean;
    RC_ASSERT(now <= before * (1 + 1e-12));
    before = now;
  }
}

TEST(Balancing, ALoadThatDriftsOutrunsItsPlacement_D3) {
  BalancingScenario scenario = scenario_of(1.2);
  scenario.drift = 0.3;
  BalancingPolicy often;
  often.rebalance_every = 1;
  often.slots_per_rank = 5;
  BalancingPolicy seldom = often;
  seldom.rebalance_every = 25;
  const auto mean_imbalance = [&](const BalancingPolicy& policy) {
    BalancingSimulation simulation(policy, scenario);
    double sum = 0;
    for (int step = 0; step < 100; ++step) sum += simulation.next().rank_max_over_mean / 100;
    return sum;
  };
  EXPECT_LT(mean_imbalance(often), mean_imbalance(seldom));
  EXPECT_EQ(mean_imbalance(often), mean_imbalance(often)) << "reproducible by its seed";
}

TEST(Balancing, RefusesWhatContradictsItself) {
  BalancingScenario scenario = scenario_of(1.0);
  EXPECT_THROW(BalancingSimulation(limited(1, Overflow::next_best), scenario), InputError);
  BalancingPolicy waiting;
  waiting.capacity.overflow = Overflow::queue;
  EXPECT_THROW(BalancingSimulation(waiting, scenario), InputError) << "nothing is ever full";
  BalancingPolicy few;
  few.rebalance_every = 2;
  few.slots_per_rank = 3;
  EXPECT_THROW(BalancingSimulation(few, scenario), InputError) << "24 slots for 32 experts";
  scenario.routing.groups = 4;
  scenario.routing.groups_kept = 2;
  EXPECT_THROW(BalancingSimulation({}, scenario), InputError) << "no closed form";
}

}  // namespace
}  // namespace moecast
