#include "sim/step/gpu_training_step.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "models/plan/graph.h"
#include "sim/analytic/analytic.h"
#include "sim/analytic/training_run.h"
#include "sim/step/collective_cost.h"
#include "sim/step/gpu_training.h"
#include "sim/step/pipeline_schedule.h"
#include "sim/step/training_pipeline.h"

namespace moecast {
namespace {

/// Activations of a micro-batch on their way to the next stage and, where something is trained below, their gradients
/// on their way back. Stages lie furthest apart: all ranks of one, replicas included, are neighbours.
double transfer_s(const KernelCalibration& kernels, const Architecture& architecture, const Deployment& deployment,
                  const Workload& workload, std::int64_t stage, bool returns_gradient) {
  const std::int64_t ranks = stage_ranks(deployment) * workload.training.replicas;
  const double nodes = stage_crosses_nodes(stage, ranks, kernels.device.node_devices) ? 2 : 1;
  return (returns_gradient ? 2 : 1) * collective_cost(kernels, "point_to_point", 2, nodes)
                                          .seconds(handed_elements(architecture, deployment, workload));
}

Prediction pipeline_step(const KernelCalibration& kernels, const Architecture& architecture,
                         const Deployment& deployment, const Workload& workload, const Without& without) {
  const auto m = static_cast<std::size_t>(workload.training.accumulation);
  const std::vector<TrainingStageGraph> graphs = training_stages(architecture, deployment, workload);
  std::vector<Prediction> stages;
  PassedStages passed;
  for (const TrainingStageGraph& stage : graphs) {
    const GpuTrainingTimes times(kernels, stage.stage.deployment, workload.training.replicas);
    Prediction one = predict_training_stage(stage, [&](const Operator& op) { return times.of(op); }, without);
    if (one.status != Status::ok) return one;
    one.warnings = times.notes();
    passed.stages.push_back(passes_of(*one.training).value() / static_cast<double>(m));
    passed.update_s = std::max(passed.update_s, update_of(*one.training).value());
    stages.push_back(std::move(one));
  }
  for (int s = 0; s + 1 < deployment.pp; ++s) {
    passed.transfers.push_back(without.all_to_all
                                   ? 0
                                   : transfer_s(kernels, architecture, deployment, workload, s,
                                                graphs[static_cast<std::size_t>(s) + 1].returns_gradient()));
  }
  const PipelineTimes times = pipeline_times(std::vector<MicroBatchTimes>(m, {passed.stages, passed.transfers}));
  passed.passes_s = times.fill_drain_s;
  passed.bubble_ratio = times.fill_drain_bubble_ratio;
  return put_together(std::move(stages), graphs, passed, architecture, deployment, workload);
}

}  // namespace

Prediction predict_training_step(const KernelCalibration& kernels, const Architecture& architecture,
                                 const Deployment& deployment, const Workload& workload, const Without& without) {
  if (deployment.pp > 1) return pipeline_step(kernels, architecture, deployment, workload, without);
  const TrainingStageGraph all{
      {architecture, deployment, workload, {}}, {}, build_graph(architecture, deployment, workload)};
  const GpuTrainingTimes times(kernels, deployment, workload.training.replicas);
  Prediction prediction = predict_training_stage(all, [&](const Operator& op) { return times.of(op); }, without);
  if (prediction.status == Status::ok) prediction.warnings = times.notes();
  return prediction;
}

}  // namespace moecast
