#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/routing/assignment.h"
#include "models/routing/expert_orders.h"

namespace moecast {

/// A sampled routing as a recorded one: layers whose popularity ranks correlate and drift from step to step.
struct TraceRecipe {
  RoutingPolicy policy;            ///< of a fixed k
  std::vector<double> popularity;  ///< of the experts of every layer, in the layer's own order
  OrderSeries orders;
  std::int64_t tokens = 1;  ///< of a step
  int layers = 1;
  std::int64_t steps = 1;
  std::uint64_t seed = 1;
};

/// CSV as RoutingTraceLines reads it, step after step. Equal seeds give equal text.
/// @throws InputError for a policy whose k varies, or above five million lines.
std::string routing_trace_text(const TraceRecipe& recipe);

}  // namespace moecast
