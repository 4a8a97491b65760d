#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "models/architecture/moe.h"
#include "models/routing/assignment.h"
#include "models/routing/expert_orders.h"
#include "models/routing/placement.h"

namespace moecast {

/// So many steps with one capacity factor (large early, small late).
struct CapacityStage {
  std::int64_t steps = 1;
  double factor = 1;
};

/// What balances the load of one MoE layer from step to step.
struct BalancingPolicy {
  CapacitySpec capacity;                ///< of every step; its factor is that of `schedule`, where there is one
  std::vector<CapacityStage> schedule;  ///< the last stage goes on
  /// Overflow::queue: so many rows wait at an expert for the next step at most; what is above is dropped.
  std::optional<std::int64_t> queue_rows;
  /// Online feedback to the gate: after a step the bias of an expert above the mean falls by so much, that of one below
  /// rises (auxiliary-loss-free balancing, DeepSeek-V3). Added to ln(popularity). 0: none.
  double bias_step = 0;
  /// Experts are placed anew after so many steps, from the rows since the last time, where that lowers the fullest rank
  /// of those rows. 0: never.
  std::int64_t rebalance_every = 0;
  int slots_per_rank = 0;  ///< for that
};

/// One MoE layer over steps.
struct BalancingScenario {
  std::vector<double> popularity;  ///< of each expert in step 0
  RoutingPolicy routing;
  std::int64_t tokens = 1;  ///< of a step
  Placement placement{1, {{0}}};
  double drift = 0;     ///< of the experts' order of popularity, from step to step (OrderSeries)
  bool sampled = true;  ///< false: expected rows (token choice of a fixed k)
  std::uint64_t seed = 1;
  std::optional<double> expert_bytes;  ///< weights of an expert; unknown: moves have no bytes
  std::optional<double> bytes_per_s;   ///< of the link of a rank, one direction; unknown: moves have no time
};

/// What a step did. Rows are (token, slot) pairs.
struct BalancingStep {
  std::int64_t step = 0;
  std::optional<double> capacity_factor;
  std::optional<std::int64_t> slots;  ///< of an expert
  double asked = 0;                   ///< rows that the router chose in this step
  double kept = 0;                    ///< computed, those that had waited included
  double dropped = 0;
  double waiting = 0;               ///< for the next step
  double padded = 0;                ///< empty slots that are computed
  double expert_max_over_mean = 1;  ///< of rows that the router chose
  double rank_max_over_mean = 1;    ///< of rows that are computed
  double bias_range = 0;            ///< largest less smallest bias
  std::int64_t moved_copies = 0;    ///< of experts, after the step
  std::optional<double> moved_bytes;
  std::optional<double> move_s;  ///< of the rank that receives most
};

/// Simulates steps with feedback. Deterministic for a seed.
class BalancingSimulation {
 public:
  /// @throws InputError where numbers contradict each other, or expected rows are asked of a policy that has none.
  BalancingSimulation(BalancingPolicy policy, BalancingScenario scenario);
  BalancingStep next();
  [[nodiscard]] const Placement& placement() const { return scenario_.placement; }

 private:
  std::vector<double> route();
  [[nodiscard]] std::vector<double> popularity_now();
  void limit(const std::vector<double>& asked, BalancingStep& step, std::vector<double>& computed);
  void learn(const std::vector<double>& asked, BalancingStep& step);
  void rebalance(BalancingStep& step);
  [[nodiscard]] CapacitySpec capacity_at(std::int64_t step) const;

  BalancingPolicy policy_;
  BalancingScenario scenario_;
  ExpertOrders orders_;
  std::vector<std::int32_t> first_;  ///< of each expert: what stands for it in `orders_`
  std::vector<double> sorted_;       ///< popularity, largest first
  Random random_;
  std::int64_t step_ = 0;
  std::vector<double> bias_;     ///< of experts
  std::vector<double> waiting_;  ///< rows of experts
  std::vector<double> seen_;     ///< rows of experts since they were placed
  Assignment assignment_;
};

}  // namespace moecast
