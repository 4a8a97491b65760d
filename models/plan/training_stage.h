#pragma once
#include <cstddef>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/stages.h"
#include "models/plan/workload.h"

namespace moecast {

/// A pipeline stage of a training step, as a step of its own.
struct StageOfTraining {
  Architecture architecture;
  Deployment deployment;  ///< pp 1
  Workload workload;      ///< wants the gradient of its input where stages before it are trained
  StackEnds ends;
};

/// @param deployment  several stages. @param stage  from 0 to pp - 1.
/// @throws InputError at "pp" where a stage would have no layer, or the model has an encoder; at "micro_batches", which
/// are those of gradient accumulation.
StageOfTraining training_stage(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                               std::size_t stage);

/// Micro-batches whose activations a stage keeps at once, each from its forward to its backward pass, where one of each
/// follow in turn (1F1B; Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters").
double micro_batches_kept(const Deployment& deployment, const TrainingPlan& plan, std::size_t stage);

}  // namespace moecast
