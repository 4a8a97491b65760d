#pragma once
#include <optional>
#include <span>

#include "hwprofiles/profile.h"
#include "models/plan/operator.h"
#include "sim/analytic/analytic.h"
#include "sim/event/event_graph.h"
#include "sim/event/graph_links.h"

namespace moecast {

struct GraphEngineOptions {
  double memory_bandwidth = 0;  ///< of a rank's bus, B/s; 0: nobody shares it
  /// Seconds in which a rank's host thread launches one operator. The host runs ahead of its device: an operator starts
  /// when it was launched and the one before it in its stream has ended.
  double launch_s = 0;
  std::optional<GraphNetwork> network{};  ///< nullopt: collectives take their time and nobody shares it
};

/// Of one rank with so many threads: what was read or copied from memory on them, else the datasheet's; 0: not known.
double memory_bandwidth_of(const Profile& profile, int threads);

/// Operators of a step as tasks: a chain a (rank, stream), and what `depends_on` says across. Each takes its bytes from
/// the memory bus of its rank, at most at the rate that it reaches alone: kernels that run side by side share it.
///
/// With a network, a collective loads the links on its way. Alone, on links next to each other, it takes its time;
/// where its ranks lie further apart, or a link is slow or tapers, the part of it in which bytes flow takes as much
/// longer as the fullest link does.
/// @param times  of the operators, as `time_of` gives them.
/// @throws InputError when the numbers of operators and times differ, a dependency is no older operator, or ranks do
/// not divide into the groups of a collective.
EventGraph event_graph_of(const OperatorGraph& graph, std::span<const OperatorTime> times,
                          const GraphEngineOptions& options);

}  // namespace moecast
