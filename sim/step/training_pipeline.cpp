#include "sim/step/training_pipeline.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "models/plan/training_memory.h"
#include "sim/analytic/training_run.h"

namespace moecast {
namespace {

constexpr std::array kPassed{TrainingPhase::forward, TrainingPhase::recompute, TrainingPhase::backward};

Seconds& of(TrainingCosts& costs, TrainingPhase phase) { return costs.latency[static_cast<std::size_t>(phase)]; }
Seconds of(const TrainingCosts& costs, TrainingPhase phase) { return costs.latency[static_cast<std::size_t>(phase)]; }

PipelineReport report_of(const std::vector<TrainingStageGraph>& graphs, const PassedStages& passed,
                         std::int64_t micro_batches) {
  PipelineReport report;
  for (std::size_t s = 0; s < graphs.size(); ++s) {
    report.stages.push_back({static_cast<std::int64_t>(graphs[s].layers.first),
                             static_cast<std::int64_t>(graphs[s].layers.count), Seconds(passed.stages[s])});
  }
  for (const double sent : passed.transfers) report.transfers.emplace_back(sent);
  report.micro_batches = micro_batches;
  report.fill_drain = Seconds(passed.passes_s);
  report.period = Seconds(passed.passes_s + passed.update_s);
  report.fill_drain_bubble_ratio = passed.bubble_ratio;
  report.period_bubble_ratio = passed.bubble_ratio * (report.fill_drain / report.period);
  return report;
}

}  // namespace

Seconds passes_of(const TrainingCosts& costs) {
  Seconds sum(0);
  for (const TrainingPhase phase : kPassed) sum += of(costs, phase);
  return sum;
}

Seconds update_of(const TrainingCosts& costs) {
  return of(costs, TrainingPhase::gradient_reduction) + of(costs, TrainingPhase::optimizer);
}

std::vector<TrainingStageGraph> training_stages(const Architecture& architecture, const Deployment& deployment,
                                                const Workload& workload) {
  std::vector<TrainingStageGraph> stages;
  for (const StageLayers& layers : stage_layers(architecture.decoder.size(), deployment.pp, deployment.extra_layers)) {
    const StageOfTraining one = training_stage(architecture, deployment, workload, stages.size());
    OperatorGraph graph = training_graph(one.architecture, one.deployment, one.workload, one.ends);
    stages.push_back({one, layers, std::move(graph)});
  }
  return stages;
}

Prediction predict_training_stage(const TrainingStageGraph& stage, const TimeOf& time_of, const Without& without) {
  const StageOfTraining& one = stage.stage;
  Prediction prediction;
  if (!stage.operators.not_executed.empty()) {
    prediction.status = Status::outside_range;
    prediction.reason = stage.operators.not_executed.front();
    return prediction;
  }
  prediction = evaluate(stage.operators, one.deployment, one.workload, time_of, {}, without);
  describe_training(one.architecture, one.deployment, one.workload, stage.operators, *prediction.training);
  prediction.flops = flops_of(stage.operators);
  return prediction;
}

double handed_elements(const Architecture& architecture, const Deployment& deployment, const Workload& workload) {
  const auto sequences = static_cast<double>(micro_batch(workload, deployment)) / deployment.dp;
  return sequences * static_cast<double>(workload.prompt) * static_cast<double>(architecture.hidden);
}

Prediction put_together(std::vector<Prediction> stages, const std::vector<TrainingStageGraph>& graphs,
                        const PassedStages& passed, const Architecture& architecture, const Deployment& deployment,
                        const Workload& workload) {
  const auto slowest = std::ranges::max_element(stages, {}, [](const Prediction& p) { return p.latency->value(); });
  Prediction step = std::move(*slowest);
  TrainingCosts& costs = *step.training;
  const Seconds computed = passes_of(costs);
  const double stretch = Seconds(passed.passes_s) / computed;
  for (const TrainingPhase phase : kPassed) of(costs, phase) *= stretch;
  const Seconds own_update = update_of(costs);
  const Seconds latency(passed.passes_s + passed.update_s);
  // What others compute meanwhile is work of the same kinds.
  const double longer_step = latency / *step.latency;
  for (Seconds Factors::* part :
       {&Factors::all_to_all, &Factors::memory_bandwidth, &Factors::routing_overhead, &Factors::compute}) {
    step.factors.*part *= longer_step;
  }
  step.operators.push_back({"pipeline", "waiting for other stages and transfers", "pipeline", 1,
                            std::max(Seconds(0), latency - computed - own_update), step.origin});
  if (own_update.value() > 0) {
    const double longer = Seconds(passed.update_s) / own_update;
    of(costs, TrainingPhase::gradient_reduction) *= longer;
    of(costs, TrainingPhase::optimizer) *= longer;
  } else {
    of(costs, TrainingPhase::optimizer) = Seconds(passed.update_s);  // of another stage: this one trains nothing
  }
  const double half = 0.5 * std::log(*step.high / *step.low);
  step.latency = latency;
  step.low = latency * std::exp(-half);
  step.high = latency * std::exp(half);
  step.throughput_tokens_per_s = step_tokens(workload) / latency.value();
  step.pipeline = report_of(graphs, passed, workload.training.accumulation);
  costs.trained_parameters = 0;
  const auto parts = part_weights(architecture, {}, workload.training);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    costs.trained_parameters += workload.training.frozen[i] ? 0 : parts[i].parameters;
  }
  costs.devices =
      static_cast<double>(stage_ranks(deployment)) * deployment.pp * static_cast<double>(workload.training.replicas);
  return step;
}

}  // namespace moecast
