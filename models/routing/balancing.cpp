#include "models/routing/balancing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "models/core/error.h"
#include "models/routing/capacity.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"
#include "models/routing/metrics.h"

namespace moecast {
namespace {

void need_balance(bool holds, const std::string& what, const char* hint = "") {
  if (!holds) throw InputError("balancing", what, hint);
}

bool has_expectation(const RoutingPolicy& routing) {
  return routing.kind == RoutingPolicyKind::token_choice && routing.top_k_distribution.empty() &&
         routing.groups_kept == routing.groups && routing.noise_strength == 0;
}

double total(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

double fullest(const Placement& placement, const std::vector<double>& rows) {
  return std::ranges::max(placement.rows_per_rank(rows));
}

/// Copies that a rank must fetch to go from one placement to another.
std::vector<std::int64_t> fetched(const Placement& from, const Placement& to) {
  std::vector<std::int64_t> copies(static_cast<std::size_t>(to.ranks()), 0);
  for (int expert = 0; expert < to.experts(); ++expert) {
    const auto before = from.ranks_of(expert);
    for (const std::int32_t rank : to.ranks_of(expert)) {
      if (!std::ranges::binary_search(before, rank)) ++copies[static_cast<std::size_t>(rank)];
    }
  }
  return copies;
}

}  // namespace

BalancingSimulation::BalancingSimulation(BalancingPolicy policy, BalancingScenario scenario)
    : policy_(std::move(policy)),
      scenario_(std::move(scenario)),
      orders_(static_cast<int>(scenario_.popularity.size()), 1, 1, {0, scenario_.drift}, scenario_.seed),
      random_(scenario_.seed) {
  const std::size_t experts = scenario_.popularity.size();
  need_balance(static_cast<std::size_t>(scenario_.placement.experts()) == experts,
               fmt::format("{} experts are placed, {} are routed to", scenario_.placement.experts(), experts));
  need_balance(scenario_.tokens >= 1, "a step has no token");
  need_balance(std::isfinite(policy_.bias_step) && policy_.bias_step >= 0, "the bias moves by a negative step");
  need_balance(policy_.bias_step == 0 || scenario_.routing.kind == RoutingPolicyKind::token_choice,
               "only token choice has a bias to learn");
  need_balance(policy_.capacity.overflow == Overflow::drop || policy_.capacity.overflow == Overflow::queue,
               "over steps, what does not fit is dropped or waits", "--overflow drop or queue");
  need_balance(!policy_.queue_rows || policy_.capacity.overflow == Overflow::queue,
               "rows wait only where they are queued", "--overflow queue");
  need_balance(policy_.capacity.overflow != Overflow::queue || policy_.capacity.limited() || !policy_.schedule.empty(),
               "nothing waits without a capacity", "--capacity-factor F");
  need_balance(policy_.rebalance_every >= 0, "rebalancing every negative number of steps");
  need_balance(
      policy_.rebalance_every == 0 || static_cast<std::int64_t>(policy_.slots_per_rank) * scenario_.placement.ranks() >=
                                          static_cast<std::int64_t>(experts),
      fmt::format("{} slots on {} ranks hold no {} experts", policy_.slots_per_rank, scenario_.placement.ranks(),
                  experts),
      "--slots N");
  for (const CapacityStage& stage : policy_.schedule) {
    need_balance(stage.steps >= 1 && stage.factor > 0 && std::isfinite(stage.factor),
                 fmt::format("a stage of {} steps at a factor of {}", stage.steps, stage.factor));
  }
  need_balance(scenario_.sampled || has_expectation(scenario_.routing),
               "only token choice of a fixed k has expected rows", "--samples 1");
  need_balance(scenario_.drift == 0 || scenario_.routing.groups == 1, "experts of groups do not drift", "--groups 1");
  std::vector<std::size_t> by_popularity(experts);
  std::iota(by_popularity.begin(), by_popularity.end(), std::size_t{0});
  std::ranges::stable_sort(by_popularity, std::greater<>(), [&](std::size_t e) { return scenario_.popularity[e]; });
  first_.resize(experts);
  for (std::size_t place = 0; place < experts; ++place) {
    first_[by_popularity[place]] = orders_.at(0)[place];
    sorted_.push_back(scenario_.popularity[by_popularity[place]]);
  }
  bias_.assign(experts, 0);
  waiting_.assign(experts, 0);
  seen_.assign(experts, 0);
}

CapacitySpec BalancingSimulation::capacity_at(std::int64_t step) const {
  CapacitySpec capacity = policy_.capacity;
  if (policy_.schedule.empty()) return capacity;
  double factor = policy_.schedule.back().factor;
  for (const CapacityStage& stage : policy_.schedule) {
    if (step < stage.steps) {
      factor = stage.factor;
      break;
    }
    step -= stage.steps;
  }
  capacity.eval_factor = factor;
  return capacity;
}

/// Who has which popularity in this step.
std::vector<double> BalancingSimulation::popularity_now() {
  if (scenario_.drift == 0) return scenario_.popularity;
  orders_.go_to(step_);
  const std::span<const std::int32_t> order = orders_.at(0);
  std::vector<double> of_item(order.size());
  for (std::size_t place = 0; place < order.size(); ++place) {
    of_item[static_cast<std::size_t>(order[place])] = sorted_[place];
  }
  std::vector<double> now(order.size());
  for (std::size_t e = 0; e < now.size(); ++e) now[e] = of_item[static_cast<std::size_t>(first_[e])];
  return now;
}

/// Rows that the router gives to each expert in this step.
std::vector<double> BalancingSimulation::route() {
  std::vector<double> weights = popularity_now();
  for (std::size_t e = 0; e < weights.size(); ++e) weights[e] *= std::exp(bias_[e]);
  const double sum = total(weights);
  for (double& weight : weights) weight /= sum;
  if (!scenario_.sampled) {
    std::vector<double> rows = inclusion_probability(weights, scenario_.routing.top_k);
    for (double& row : rows) row *= static_cast<double>(scenario_.tokens);
    return rows;
  }
  Router(scenario_.routing, weights).draw(scenario_.tokens, random_, assignment_);
  const std::vector<std::int64_t> rows = assignment_.rows_per_expert();
  return {rows.begin(), rows.end()};
}

void BalancingSimulation::limit(const std::vector<double>& asked, BalancingStep& step, std::vector<double>& computed) {
  const CapacitySpec capacity = capacity_at(step_);
  step.capacity_factor = capacity.eval_factor ? capacity.eval_factor : capacity.train_factor;
  step.slots = capacity_slots(capacity, scenario_.tokens, scenario_.routing.top_k, std::ssize(asked));
  computed = asked;
  for (std::size_t e = 0; e < asked.size(); ++e) {
    double rows = asked[e] + std::exchange(waiting_[e], 0.0);
    if (step.slots) {
      const auto slots = static_cast<double>(*step.slots);
      double over = std::max(0.0, rows - slots);
      rows -= over;
      if (capacity.overflow == Overflow::queue) {
        waiting_[e] = policy_.queue_rows ? std::min(over, static_cast<double>(*policy_.queue_rows)) : over;
        over -= waiting_[e];
      }
      step.dropped += over;
      step.waiting += waiting_[e];
      if (capacity.pad) step.padded += slots - rows;
    }
    step.kept += rows;
    computed[e] = step.slots && capacity.pad ? static_cast<double>(*step.slots) : rows;
  }
}

void BalancingSimulation::learn(const std::vector<double>& asked, BalancingStep& step) {
  const double mean = total(asked) / static_cast<double>(asked.size());
  for (std::size_t e = 0; e < asked.size() && policy_.bias_step > 0; ++e) {
    if (asked[e] != mean) bias_[e] += asked[e] < mean ? policy_.bias_step : -policy_.bias_step;
  }
  const auto [least, most] = std::ranges::minmax(bias_);
  step.bias_range = most - least;
}

void BalancingSimulation::rebalance(BalancingStep& step) {
  if (policy_.rebalance_every == 0 || step_ % policy_.rebalance_every != 0) return;
  const Placement better = balanced_placement(seen_, scenario_.placement.ranks(), policy_.slots_per_rank);
  std::vector<std::int64_t> copies(static_cast<std::size_t>(better.ranks()), 0);
  if (fullest(better, seen_) < fullest(scenario_.placement, seen_)) {
    copies = fetched(scenario_.placement, better);
    scenario_.placement = better;
  }
  step.moved_copies = std::accumulate(copies.begin(), copies.end(), std::int64_t{0});
  if (scenario_.expert_bytes) {
    step.moved_bytes = static_cast<double>(step.moved_copies) * *scenario_.expert_bytes;
    if (scenario_.bytes_per_s) {
      step.move_s =
          static_cast<double>(*std::ranges::max_element(copies)) * *scenario_.expert_bytes / *scenario_.bytes_per_s;
    }
  }
  std::ranges::fill(seen_, 0.0);
}

BalancingStep BalancingSimulation::next() {
  BalancingStep step;
  step.step = step_;
  const std::vector<double> asked = route();
  std::vector<double> computed;
  step.asked = total(asked);
  limit(asked, step, computed);
  if (step.asked > 0) step.expert_max_over_mean = load_metrics(asked).max_over_mean;
  if (total(computed) > 0) {
    step.rank_max_over_mean = load_metrics(scenario_.placement.rows_per_rank(computed)).max_over_mean;
  }
  for (std::size_t e = 0; e < asked.size(); ++e) seen_[e] += asked[e];
  learn(asked, step);
  ++step_;
  rebalance(step);
  return step;
}

}  // namespace moecast
