#include "sim/event/training_events.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/core/error.h"
#include "models/plan/graph.h"
#include "sim/event/collective_traffic.h"
#include "sim/event/engine.h"
#include "sim/event/graph_engine.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/gpu_training.h"

namespace moecast {
namespace {

/// Ranks that wait for each other are as slow as the slowest of them.
double slowest(const TrainingEventOptions& options, int ranks) {
  double factor = ranks > static_cast<int>(options.slow_ranks.size()) ? 1 : 0;
  for (const auto& [rank, own] : options.slow_ranks) {
    if (rank < 0 || rank >= ranks) {
      throw InputError("slow rank", fmt::format("{} of {} ranks", rank, ranks), "ranks count from 0");
    }
    factor = std::max(factor, own);
  }
  return factor;
}

}  // namespace

TrainingEvents training_events(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                               const Deployment& deployment, const Workload& workload,
                               const TrainingEventOptions& options) {
  if (deployment.pp != 1) {
    throw InputError("pp", fmt::format("{} pipeline stages", deployment.pp),
                     "stages of a training step are not events yet: --pp 1, or the analytic engine");
  }
  // A lone layer says only where its experts lie.
  const int of_one = std::max(stage_ranks(deployment), deployment.ep * expert_tensor_ranks(deployment));
  const int ranks = of_one * static_cast<int>(workload.training.replicas);
  Topology topology(cluster, ranks, &machine.profile);
  for (const auto& [link, factor] : options.slow_links) topology.scale_link(link, factor);
  const double slow = slowest(options, ranks);
  TrainingEvents events;
  events.operators = build_graph(architecture, deployment, workload);
  if (const std::vector<std::string>& missing = events.operators.not_executed; !missing.empty()) {
    throw InputError(architecture.name, missing.front());
  }
  const GpuTrainingTimes costs(*machine.kernels, deployment, std::nullopt);
  for (const Operator& op : events.operators.operators) {
    OperatorTime time = costs.of(op);
    if (groups_of(op, deployment, ranks).size == 1) {
      for (Seconds* part : {&time.latency, &time.memory, &time.compute}) *part *= slow;
    }
    events.durations.push_back(time);
  }
  GraphNetwork network{topology, deployment,
                       [&](int size) { return Topology(without_taper(cluster), size, &machine.profile); },
                       [&](const Operator& op) { return costs.start_s(op); }, options.background_share};
  events.graph = event_graph_of(events.operators, events.durations, {0, 0, std::move(network)});
  events.times = simulate(events.graph);
  for (std::size_t i = 0; i < events.durations.size(); ++i) {
    events.step_s = std::max(events.step_s, events.times.end_s[i]);
    events.durations[i].latency = Seconds(events.times.end_s[i] - events.times.start_s[i]);
  }
  events.links = topology.origin();
  events.notes = topology.assumed();
  events.notes.emplace_back("collectives go around rings of ranks, tensor-parallel ones next to each other");
  return events;
}

Prediction predict_training_events(const Predictor& closed, const GpuMachine& machine, const Cluster& cluster,
                                   const Architecture& architecture, const Deployment& asked, const Workload& workload,
                                   const TrainingEventOptions& options) {
  const Deployment deployment = with_attention_replicas(architecture, asked);
  Prediction prediction = closed.predict(architecture, deployment, workload);
  if (!prediction.latency) return prediction;
  const TrainingEvents events = training_events(machine, cluster, architecture, deployment, workload, options);
  const Operator* const first = events.operators.operators.data();
  const Prediction executed =
      evaluate(events.operators, deployment, workload,
               [&](const Operator& op) { return events.durations[static_cast<std::size_t>(&op - first)]; }, {}, {});
  prediction.latency = executed.latency;
  prediction.low = executed.low;
  prediction.high = executed.high;
  prediction.throughput_tokens_per_s = executed.throughput_tokens_per_s;
  prediction.factors = executed.factors;
  prediction.operators = executed.operators;
  prediction.bottleneck = executed.bottleneck;
  if (events.links == Origin::assumed) prediction.origin = Origin::assumed;
  prediction.training->latency = executed.training->latency;
  prediction.warnings.insert(prediction.warnings.end(), events.notes.begin(), events.notes.end());
  return prediction;
}

}  // namespace moecast
