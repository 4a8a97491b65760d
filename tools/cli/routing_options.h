#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/routing/balancing.h"
#include "models/routing/load.h"
#include "models/routing/routing_answer.h"

namespace moecast {

class Command;

/// What was typed after `routing`, as text.
struct RoutingOptions {
  std::string experts, top_k, tokens, ranks = "1", ranks_per_node = "8", hidden, width;
  std::string load, seed = "1", samples, policy, groups = "1", groups_kept, noise, top_k_distribution, unit = "1";
  std::string capacity_factor, capacity_of = "top-k", rounding = "ceil", overflow, queue_rows, row_block = "1";
  std::string placement, slots, deduplicate, dispatch_dtype, combine_dtype, dtype;
  std::string steps, schedule, bias_step, rebalance, drift, link;
  std::string trace, layers, correlation;
  std::string trace_layer;
  std::string show, format = "table";
  bool pad = false;
  bool no_gated = false;
};
void add_routing_options(const Command& command, RoutingOptions& options);

/// What is asked, and in what its answer is counted.
struct RoutingRequest {
  RoutingQuestion question;
  ExpertLoad load;
  std::string placement;                     ///< as typed
  std::optional<Placement> before;           ///< contiguous or round-robin, where the balancer placed
  std::optional<double> dispatch_row_bytes;  ///< unknown without --hidden
  std::optional<double> combine_row_bytes;
  std::optional<double> expert_bytes;  ///< unknown without --hidden and --width
  std::optional<double> link;          ///< B/s of a rank's link, one direction
  bool samples_assumed = false;        ///< no closed form, and nobody said how many
  std::vector<std::string> notes;      ///< what a recorded load is taken for
};
/// @throws UsageError on a wrong value, InputError on a bad trace or contradicting numbers.
RoutingRequest routing_request(const RoutingOptions& options);

/// Steps with feedback: nullopt where none are asked for. @throws UsageError.
struct StepsRequest {
  BalancingPolicy policy;
  BalancingScenario scenario;
  std::int64_t steps = 0;
};
std::optional<StepsRequest> steps_request(const RoutingOptions& options, const RoutingRequest& request);

}  // namespace moecast
