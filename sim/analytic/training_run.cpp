#include "sim/analytic/training_run.h"

#include "models/core/error.h"
#include "models/plan/training_memory.h"

namespace moecast {
namespace {

constexpr double kHour = 3600;

template <class T>
void add(std::optional<T>& sum, const std::optional<T>& part) {
  sum = sum && part ? std::optional(*sum + *part) : std::nullopt;
}

}  // namespace

std::optional<Flops> flops_of(const OperatorGraph& graph) {
  if (!graph.not_executed.empty()) return std::nullopt;
  Flops sum;
  for (const Operator& op : graph.operators) sum += op.flops * op.count;
  return sum;
}

void describe_training(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                       const OperatorGraph& graph, TrainingCosts& costs) {
  const TrainingPlan& plan = workload.training;
  for (const Operator& op : graph.operators) costs.flops[static_cast<std::size_t>(op.phase)] += op.flops * op.count;
  const auto parts = part_weights(architecture, {}, plan);
  for (std::size_t i = 0; i < parts.size(); ++i) costs.trained_parameters += plan.frozen[i] ? 0 : parts[i].parameters;
  costs.devices = static_cast<double>(stage_ranks(deployment)) * deployment.pp * static_cast<double>(plan.replicas);
}

TrainingRun training_run(const std::vector<TrainingStage>& stages, std::int64_t rounds) {
  if (stages.empty()) throw InputError("stages", "are missing", "a run has at least one");
  if (rounds < 1) throw InputError("rounds", "is " + std::to_string(rounds), "expected at least 1");
  TrainingRun run;
  run.total.wall_clock = run.total.low = run.total.high = Seconds(0);
  run.total.device_hours = 0;
  for (const TrainingStage& stage : stages) {
    if (stage.steps < 1) throw InputError("steps", "is " + std::to_string(stage.steps), "expected at least 1");
    RunCosts costs;
    costs.steps = static_cast<double>(stage.steps) * static_cast<double>(rounds);
    costs.tokens = costs.steps * stage.tokens_per_step;
    const auto all = [&](const std::optional<Seconds>& step) {
      return step ? std::optional(*step * costs.steps) : std::nullopt;
    };
    costs.wall_clock = all(stage.step.latency);
    costs.low = all(stage.step.low);
    costs.high = all(stage.step.high);
    if (costs.wall_clock) costs.device_hours = costs.wall_clock->value() / kHour * stage.devices;
    add(run.total.wall_clock, costs.wall_clock);
    add(run.total.low, costs.low);
    add(run.total.high, costs.high);
    add(run.total.device_hours, costs.device_hours);
    run.total.steps += costs.steps;
    run.total.tokens += costs.tokens;
    run.stages.push_back(costs);
  }
  return run;
}

}  // namespace moecast
