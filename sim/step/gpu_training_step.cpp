#include "sim/step/gpu_training_step.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "models/plan/graph.h"
#include "models/plan/training_graph.h"
#include "models/plan/training_memory.h"
#include "models/plan/training_stage.h"
#include "sim/analytic/analytic.h"
#include "sim/analytic/training_run.h"
#include "sim/step/collective_cost.h"
#include "sim/step/gpu_training.h"
#include "sim/step/pipeline_schedule.h"

namespace moecast {
namespace {

constexpr std::array kPassed{TrainingPhase::forward, TrainingPhase::recompute, TrainingPhase::backward};

Seconds& of(TrainingCosts& costs, TrainingPhase phase) { return costs.latency[static_cast<std::size_t>(phase)]; }
Seconds of(const TrainingCosts& costs, TrainingPhase phase) { return costs.latency[static_cast<std::size_t>(phase)]; }

/// Forward, recomputation and backward of all micro-batches.
Seconds passes_of(const TrainingCosts& costs) {
  Seconds sum(0);
  for (const TrainingPhase phase : kPassed) sum += of(costs, phase);
  return sum;
}

Seconds update_of(const TrainingCosts& costs) {
  return of(costs, TrainingPhase::gradient_reduction) + of(costs, TrainingPhase::optimizer);
}

Prediction outside(const OperatorGraph& graph) {
  Prediction prediction;
  prediction.status = Status::outside_range;
  prediction.reason = graph.not_executed.front();
  return prediction;
}

Prediction step_of(const KernelCalibration& kernels, const OperatorGraph& graph, const Architecture& architecture,
                   const Deployment& deployment, const Workload& workload, const Without& without) {
  if (!graph.not_executed.empty()) return outside(graph);
  const GpuTrainingTimes times(kernels, deployment, workload.training.replicas);
  Prediction prediction =
      evaluate(graph, deployment, workload, [&](const Operator& op) { return times.of(op); }, {}, without);
  describe_training(architecture, deployment, workload, graph, *prediction.training);
  prediction.warnings = times.notes();
  return prediction;
}

/// Activations of a micro-batch on their way to the next stage, and their gradients on their way back.
double transfer_s(const KernelCalibration& kernels, const Architecture& architecture, const Deployment& deployment,
                  const Workload& workload, int stage) {
  const int ranks = stage_ranks(deployment);
  bool crosses = false;
  for (int rank = stage * ranks; rank < (stage + 1) * ranks; ++rank) {
    crosses = crosses || rank / kNodeDevices != (rank + ranks) / kNodeDevices;
  }
  const auto sequences = static_cast<double>(micro_batch(workload, deployment)) / deployment.dp;
  const double elements = sequences * static_cast<double>(workload.prompt) * static_cast<double>(architecture.hidden);
  return 2 * collective_cost(kernels, "point_to_point", 2, crosses ? 2 : 1).seconds(elements);
}

Prediction pipeline_step(const KernelCalibration& kernels, const Architecture& architecture,
                         const Deployment& deployment, const Workload& workload, const Without& without) {
  const auto m = static_cast<std::size_t>(workload.training.accumulation);
  std::vector<Prediction> stages;
  MicroBatchTimes batch;
  PipelineReport report;
  const auto layers = stage_layers(architecture.decoder.size(), deployment.pp, deployment.extra_layers);
  for (std::size_t s = 0; s < layers.size(); ++s) {
    const StageOfTraining one = training_stage(architecture, deployment, workload, s);
    const OperatorGraph graph = training_graph(one.architecture, one.deployment, one.workload, one.ends);
    stages.push_back(step_of(kernels, graph, one.architecture, one.deployment, one.workload, without));
    if (stages.back().status != Status::ok) return stages.back();
    stages.back().flops = flops_of(graph);
    batch.stages.push_back(passes_of(*stages.back().training).value() / static_cast<double>(m));
    report.stages.push_back({static_cast<std::int64_t>(layers[s].first), static_cast<std::int64_t>(layers[s].count),
                             Seconds(batch.stages.back())});
  }
  for (int s = 0; s + 1 < deployment.pp; ++s) {
    const double sent = without.all_to_all ? 0 : transfer_s(kernels, architecture, deployment, workload, s);
    batch.transfers.push_back(sent);
    report.transfers.emplace_back(sent);
  }
  const std::vector<MicroBatchTimes> schedule(m, batch);
  const PipelineTimes times = pipeline_times(schedule);
  const auto slowest = std::ranges::max_element(stages, {}, [](const Prediction& p) { return p.latency->value(); });
  Seconds update(0);
  for (const Prediction& stage : stages) update = std::max(update, update_of(*stage.training));
  Prediction step = std::move(*slowest);
  TrainingCosts& costs = *step.training;
  const Seconds computed = passes_of(costs);
  const Seconds passed(times.fill_drain_s);
  const double stretch = passed / computed;
  for (const TrainingPhase phase : kPassed) of(costs, phase) *= stretch;
  const Seconds own_update = update_of(costs);
  const Seconds latency = passed + update;
  step.operators.push_back({"pipeline", "waiting for other stages and transfers", "pipeline", 1,
                            latency - computed - own_update, step.origin});
  if (own_update.value() > 0) {
    const double longer = update / own_update;
    of(costs, TrainingPhase::gradient_reduction) *= longer;
    of(costs, TrainingPhase::optimizer) *= longer;
  }
  const double half = 0.5 * std::log(*step.high / *step.low);
  step.latency = latency;
  step.low = latency * std::exp(-half);
  step.high = latency * std::exp(half);
  step.throughput_tokens_per_s = step_tokens(workload) / latency.value();
  report.micro_batches = static_cast<std::int64_t>(m);
  report.fill_drain = passed;
  report.period = latency;
  report.fill_drain_bubble_ratio = times.fill_drain_bubble_ratio;
  report.period_bubble_ratio = times.fill_drain_bubble_ratio * (passed / latency);
  step.pipeline = std::move(report);
  costs.trained_parameters = 0;
  const auto parts = part_weights(architecture, {}, workload.training);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    costs.trained_parameters += workload.training.frozen[i] ? 0 : parts[i].parameters;
  }
  costs.devices = static_cast<double>(stage_ranks(deployment) * deployment.pp * workload.training.replicas);
  return step;
}

}  // namespace

Prediction predict_training_step(const KernelCalibration& kernels, const Architecture& architecture,
                                 const Deployment& deployment, const Workload& workload, const Without& without) {
  if (deployment.pp > 1) return pipeline_step(kernels, architecture, deployment, workload, without);
  const OperatorGraph graph = build_graph(architecture, deployment, workload);
  Prediction prediction = step_of(kernels, graph, architecture, deployment, workload, without);
  prediction.flops = flops_of(graph);
  return prediction;
}

}  // namespace moecast
