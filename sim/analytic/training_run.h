#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/core/units.h"
#include "sim/predictor.h"

namespace moecast {

/// Steps of one kind in a row: pre-training of experts, joint fine-tuning, an evaluation under attack.
struct TrainingStage {
  std::string name;
  std::int64_t steps = 1;
  double tokens_per_step = 0;
  double devices = 1;  ///< that a step occupies
  Prediction step;
};

/// How long a stage, or a whole run, takes. Unknown where a step is.
struct RunCosts {
  std::optional<Seconds> wall_clock;
  std::optional<Seconds> low;  ///< 90 % interval: the errors of all steps are those of the same kernels
  std::optional<Seconds> high;
  std::optional<double> device_hours;
  double steps = 0;
  double tokens = 0;
};

struct TrainingRun {
  std::vector<RunCosts> stages;  ///< of all rounds
  RunCosts total;
};

/// Arithmetic of a step on a rank; nullopt where parts have no operators yet.
std::optional<Flops> flops_of(const OperatorGraph& graph);

/// Fills in what a training step's latency does not need: arithmetic by phase, trained parameters, devices.
void describe_training(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                       const OperatorGraph& graph, TrainingCosts& costs);

/// Stages one after another, all of them `rounds` times: two-phase schedules, and router and experts in turn.
/// @throws InputError without a stage, below one step or one round.
TrainingRun training_run(const std::vector<TrainingStage>& stages, std::int64_t rounds);

}  // namespace moecast
