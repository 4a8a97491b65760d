#pragma once
#include <cstddef>
#include <vector>

#include "sim/event/event_graph.h"

namespace moecast {

/// SimGrid lies in a module of its own, which is opened when events are first simulated. It runs graphs one after
/// another on one platform; once a process.
using RunSimGrid = void (*)(const EventGraph* const* graphs, std::size_t count, std::vector<EventTimes>* out);
inline constexpr const char* kRunSimGrid = "moecast_run_simgrid";

}  // namespace moecast
