#pragma once
#include <functional>
#include <optional>

#include "sim/event/event_graph.h"

namespace moecast {

/// Times of all tasks. Where no resource serves two demands at once, ends follow from starts (the port bound is exact)
/// and no event is needed; else SimGrid shares resources by max-min fairness, in a process of its own.
///
/// Deterministic. @throws DeviceError when that process cannot be started or dies.
EventTimes simulate(const EventGraph& graph);

/// Times as if nothing shared anything. @return false where two demands met at a resource: the times then are bounds
/// from below.
bool schedule_alone(const EventGraph& graph, EventTimes& times);

/// Always by SimGrid. Many graphs in one process: `graphs` is asked for each in turn, on one platform, and may differ
/// in tasks but not in resources.
std::vector<EventTimes> simulate_events(std::span<const EventGraph* const> graphs);

/// Progressive filling: rate of each demand when all of them are active. Slow and plain: the oracle of the tests.
std::vector<double> max_min_rates(const EventGraph& graph, std::span<const EventGraph::StoredDemand> active);

}  // namespace moecast
