#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "sim/event/event_graph.h"
#include "sim/predictor.h"

namespace moecast {

/// A step of one rank over sampled routings: every MoE layer of a sample draws rows of its own. Latency is the mean,
/// `distribution` the percentiles.
///
/// A layer's operators depend on its rows alone, so that a step is the mean over its MoE layers of steps in which all
/// layers have the rows of one.
/// @param most  samples; a recorded routing may hold fewer windows of a step's tokens.
/// @param predictor  of the machine, either engine. @throws InputError where layers have different numbers of experts.
Prediction sample_step(const Predictor& predictor, const Architecture& architecture, const Deployment& deployment,
                       const Workload& workload, int most, std::uint64_t seed,
                       const std::function<void(int done)>& progress = {}, const std::atomic<bool>* stop = nullptr);

/// One step's operators as tasks, and when each ran.
struct StepEvents {
  EventGraph graph;
  EventTimes times;
};
/// @param folder  of a profile with calibration.json. @throws InputError as Predictor::load, and where an operator is
/// not known.
StepEvents step_events(const std::string& folder, const Architecture& architecture, const Deployment& deployment,
                       const Workload& workload);

}  // namespace moecast
