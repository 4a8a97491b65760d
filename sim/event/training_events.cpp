#include "sim/event/training_events.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "models/core/error.h"
#include "models/plan/graph.h"
#include "sim/event/collective_traffic.h"
#include "sim/event/engine.h"
#include "sim/event/graph_engine.h"
#include "sim/event/pipeline_events.h"
#include "sim/step/collective_cost.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/gpu_training.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostTasks = 2'000'000;
/// Tasks times the ranks of a stage: as many links as a collective may load.
constexpr std::int64_t kMostLoads = 30'000'000;
constexpr std::int64_t kMostRanks = 1 << 20;

/// Of each stage: ranks that wait for each other are as slow as the slowest of them.
std::vector<double> slowest(const TrainingEventOptions& options, int stages, int of_stage) {
  std::vector<std::vector<double>> own(static_cast<std::size_t>(stages));
  for (const auto& [rank, factor] : options.slow_ranks) {
    if (rank < 0 || rank >= stages * of_stage) {
      throw InputError("slow rank", fmt::format("{} of {} ranks", rank, stages * of_stage), "ranks count from 0");
    }
    own[static_cast<std::size_t>(rank / of_stage)].push_back(factor);
  }
  std::vector<double> factors;
  for (std::vector<double>& of : own) {
    if (static_cast<int>(of.size()) < of_stage) of.push_back(1);
    factors.push_back(*std::ranges::max_element(of));
  }
  return factors;
}

std::vector<TrainingStageGraph> stages_of(const Architecture& architecture, const Deployment& deployment,
                                          const Workload& workload) {
  std::vector<TrainingStageGraph> stages;
  if (deployment.pp > 1) {
    stages = training_stages(architecture, deployment, workload);
  } else {
    stages.push_back({{architecture, deployment, workload, {}}, {}, build_graph(architecture, deployment, workload)});
  }
  for (const TrainingStageGraph& stage : stages) {
    if (const std::vector<std::string>& missing = stage.operators.not_executed; !missing.empty()) {
      throw InputError(architecture.name, missing.front());
    }
  }
  return stages;
}

double ran(const EventTimes& times, std::size_t task) { return times.end_s[task] - times.start_s[task]; }

/// One stage: task i is operator i.
void run_stage(TrainingEvents& events, GraphNetwork network) {
  std::vector<OperatorTime>& durations = events.durations.front();
  events.graph = event_graph_of(events.stages.front().operators, durations, {0, 0, std::move(network)});
  events.times = simulate(events.graph);
  for (std::size_t i = 0; i < durations.size(); ++i) {
    events.step_s = std::max(events.step_s, events.times.end_s[i]);
    durations[i].latency = Seconds(ran(events.times, i));
  }
}

void run_pipeline(TrainingEvents& events, const StageHandover& handover, const GraphNetwork& network) {
  const std::int64_t micro_batches = events.stages.front().stage.workload.training.accumulation;
  std::vector<StageWork> work;
  std::int64_t tasks = 0;
  for (std::size_t s = 0; s < events.stages.size(); ++s) {
    work.push_back({events.stages[s].operators, events.durations[s], events.stages[s].returns_gradient()});
    tasks += micro_batches * (static_cast<std::int64_t>(events.durations[s].size()) + 2);
  }
  const std::int64_t stage_size = network.topology.ranks() / std::ssize(events.stages);
  if (tasks > kMostTasks || tasks * stage_size > kMostLoads) {
    throw InputError("accumulation",
                     fmt::format("{} micro-batches make {} tasks of {} ranks; up to {} are simulated", micro_batches,
                                 tasks, stage_size, std::min(kMostTasks, kMostLoads / stage_size)),
                     "fewer micro-batches, or the analytic engine");
  }
  PipelineGraph graph = pipeline_graph(work, static_cast<int>(micro_batches), handover, network);
  events.times = simulate(graph.events);
  PassedStages& passed = events.passed;
  passed.stages.assign(events.stages.size(), 0);
  passed.transfers.assign(events.stages.size() - 1, 0);
  for (auto& of_stage : events.durations) {
    for (OperatorTime& time : of_stage) time.latency = Seconds(0);
  }
  const auto share = 1 / static_cast<double>(micro_batches);
  for (std::size_t i = 0; i < graph.places.size(); ++i) {
    const PipelineGraph::Place& place = graph.places[i];
    const auto stage = static_cast<std::size_t>(place.stage);
    const double seconds = ran(events.times, i);
    events.step_s = std::max(events.step_s, events.times.end_s[i]);
    if (place.micro_batch >= 0) passed.passes_s = std::max(passed.passes_s, events.times.end_s[i]);
    if (place.op >= 0) {
      events.durations[stage][static_cast<std::size_t>(place.op)].latency += Seconds(seconds);
      if (place.micro_batch >= 0) passed.stages[stage] += seconds * share;
    } else if (graph.events.kind(static_cast<int>(i)) == TaskKind::transfer) {
      passed.transfers[place.backward ? stage - 1 : stage] += seconds * share;
    }
  }
  passed.update_s = events.step_s - passed.passes_s;
  double computed = 0;
  for (const double of_stage : passed.stages) computed += of_stage * static_cast<double>(micro_batches);
  passed.bubble_ratio =
      std::clamp(1 - computed / (static_cast<double>(events.stages.size()) * passed.passes_s), 0.0, 1.0);
  events.graph = std::move(graph.events);
}

}  // namespace

TrainingEvents training_events(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                               const Deployment& deployment, const Workload& workload,
                               const TrainingEventOptions& options) {
  TrainingEvents events;
  events.stages = stages_of(architecture, deployment, workload);
  // A lone layer says only where its experts lie.
  const int of_one = std::max(stage_ranks(deployment), deployment.ep * expert_tensor_ranks(deployment));
  const std::int64_t all = std::int64_t{of_one} * workload.training.replicas * deployment.pp;
  if (all > kMostRanks) {
    throw InputError("replicas", fmt::format("{} ranks; up to {} are simulated", all, kMostRanks),
                     "the analytic engine");
  }
  const int of_stage = of_one * static_cast<int>(workload.training.replicas);
  Topology topology(cluster, of_stage * deployment.pp, &machine.profile);
  for (const auto& [link, factor] : options.slow_links) topology.scale_link(link, factor);
  const std::vector<double> slow = slowest(options, deployment.pp, of_stage);
  Deployment one_stage = deployment;
  one_stage.pp = 1;
  const GpuTrainingTimes costs(*machine.kernels, one_stage, std::nullopt);
  for (std::size_t s = 0; s < events.stages.size(); ++s) {
    std::vector<OperatorTime>& durations = events.durations.emplace_back();
    for (const Operator& op : events.stages[s].operators.operators) {
      OperatorTime time = costs.of(op);
      if (groups_of(op, one_stage, of_stage).size == 1) {
        for (Seconds* part : {&time.latency, &time.memory, &time.compute}) *part *= slow[s];
      }
      durations.push_back(time);
    }
  }
  events.links = topology.origin();
  events.notes = topology.assumed();
  events.notes.emplace_back("collectives go around rings of ranks, tensor-parallel ones next to each other");
  GraphNetwork network{std::move(topology), one_stage,
                       [&](int size) { return Topology(without_taper(cluster), size, &machine.profile); },
                       [&](const Operator& op) { return costs.start_s(op); }, options.background_share};
  if (deployment.pp == 1) {
    run_stage(events, std::move(network));
    return events;
  }
  const CollectiveCost send = collective_cost(*machine.kernels, "point_to_point", 2, 1);
  const double elements = handed_elements(architecture, deployment, workload);
  run_pipeline(events, {elements * kActivationBytes, send.seconds(elements), send.seconds(1)}, network);
  events.notes.emplace_back(
      "pipeline stages lie furthest apart, replicas of a stage next to each other; sends are finished before the next "
      "pass");
  return events;
}

Prediction predict_training_events(const Predictor& closed, const GpuMachine& machine, const Cluster& cluster,
                                   const Architecture& architecture, const Deployment& asked, const Workload& workload,
                                   const TrainingEventOptions& options) {
  const Deployment deployment = with_attention_replicas(asked);
  Prediction prediction = closed.predict(architecture, deployment, workload);
  if (!prediction.latency) return prediction;
  const TrainingEvents events = training_events(machine, cluster, architecture, deployment, workload, options);
  std::vector<Prediction> stages;
  for (std::size_t i = 0; i < events.stages.size(); ++i) {
    const Operator* const first = events.stages[i].operators.operators.data();
    const auto time_of = [&](const Operator& op) { return events.durations[i][static_cast<std::size_t>(&op - first)]; };
    stages.push_back(predict_training_stage(events.stages[i], time_of, {}));
  }
  Prediction executed = stages.size() == 1 ? std::move(stages.front())
                                           : put_together(std::move(stages), events.stages, events.passed, architecture,
                                                          deployment, workload);
  prediction.latency = executed.latency;
  prediction.low = executed.low;
  prediction.high = executed.high;
  prediction.throughput_tokens_per_s = executed.throughput_tokens_per_s;
  prediction.factors = executed.factors;
  prediction.operators = executed.operators;
  prediction.bottleneck = executed.bottleneck;
  if (events.links == Origin::assumed) prediction.origin = Origin::assumed;
  prediction.training->latency = executed.training->latency;
  prediction.pipeline = executed.pipeline;
  prediction.warnings.insert(prediction.warnings.end(), events.notes.begin(), events.notes.end());
  return prediction;
}

}  // namespace moecast
