#pragma once
#include <span>
#include <vector>

#include "models/plan/operator.h"
#include "sim/analytic/analytic.h"
#include "sim/event/event_graph.h"
#include "sim/event/graph_links.h"

namespace moecast {

/// What the ranks of a pipeline stage execute in a training step.
struct StageWork {
  const OperatorGraph& operators;       ///< of all micro-batches, folded
  std::span<const OperatorTime> times;  ///< of each operator, all its executions
  bool returns_gradient = true;         ///< to the stage before it, where something is trained
};

/// What a micro-batch hands from a rank of one stage to its like of the next; its gradient comes back where it is
/// needed.
struct StageHandover {
  double bytes = 0;
  double latency_s = 0;  ///< between neighbours
  double start_s = 0;    ///< part of it before bytes flow
};

/// Tasks of a training step on pipeline stages.
struct PipelineGraph {
  EventGraph events;
  struct Place {
    int stage = 0;
    int op = -1;  ///< operator of the stage; -1: a handover
    int micro_batch = -1;
    bool backward = false;
  };
  std::vector<Place> places;  ///< of each task; traffic of others has none
};

/// Passes in the order 1F1B, an operator of a micro-batch a task; then each stage reduces its gradients and updates its
/// weights as soon as its own last backward pass has ended. A stage sends in its order of work and goes on when all has
/// left; who receives waits for it. Stages lie one after another, a rank of one next to those that do the same.
/// @param network  of all stages; its deployment is that of one. @param stages  at least 2, equally many ranks each.
PipelineGraph pipeline_graph(std::span<const StageWork> stages, int micro_batches, const StageHandover& handover,
                             const GraphNetwork& network);

}  // namespace moecast
