#pragma once
#include <functional>
#include <vector>

#include "models/plan/stages.h"
#include "models/plan/training_graph.h"
#include "models/plan/training_stage.h"
#include "sim/analytic/analytic.h"
#include "sim/predictor.h"

namespace moecast {

/// A pipeline stage of a training step: a step of its own, and all that it executes.
struct TrainingStageGraph {
  StageOfTraining stage;
  StageLayers layers;
  OperatorGraph operators;
  /// To the stage before it: something is trained there.
  [[nodiscard]] bool returns_gradient() const { return stage.workload.training.input_gradient; }
};

/// @param deployment  several stages. @throws InputError as training_stage and training_graph.
std::vector<TrainingStageGraph> training_stages(const Architecture& architecture, const Deployment& deployment,
                                                const Workload& workload);

/// A stage alone. @param time_of  its operators.
Prediction predict_training_stage(const TrainingStageGraph& stage, const TimeOf& time_of, const Without& without);

/// Elements of a micro-batch that a rank of a stage hands to its like of the next one.
double handed_elements(const Architecture& architecture, const Deployment& deployment, const Workload& workload);

/// Forward, recomputation and backward of all micro-batches.
Seconds passes_of(const TrainingCosts& costs);
/// Reduction of gradients, and the optimiser.
Seconds update_of(const TrainingCosts& costs);

/// How micro-batches pass the stages, seconds.
struct PassedStages {
  std::vector<double> stages;     ///< a micro-batch on each, forward and backward
  std::vector<double> transfers;  ///< of a micro-batch between neighbours, both ways
  double passes_s = 0;            ///< from the first forward pass to the end of the last backward pass
  double update_s = 0;            ///< what comes after it
  double bubble_ratio = 0;        ///< of passes_s: share that a stage waits, mean of all stages; 0 to 1
};

/// The step of all stages: the operators are those of the slowest stage, and the phases have their shares of the
/// waiting in them. @param stages  predictions of each, as predict_training_stage.
Prediction put_together(std::vector<Prediction> stages, const std::vector<TrainingStageGraph>& graphs,
                        const PassedStages& passed, const Architecture& architecture, const Deployment& deployment,
                        const Workload& workload);

}  // namespace moecast
