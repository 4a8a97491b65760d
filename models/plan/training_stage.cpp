#include "models/plan/training_stage.h"

#include <algorithm>

#include "models/core/error.h"
#include "models/plan/training_memory.h"

namespace moecast {

StageOfTraining training_stage(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                               std::size_t stage) {
  if (!architecture.encoder.empty()) {
    throw InputError("pp", "stages of an encoder are not supported yet", "leave it out");
  }
  if (deployment.micro_batches) {
    throw InputError("micro_batches", "of a training step are those whose gradients are added up",
                     "write --accumulation");
  }
  const std::size_t last = static_cast<std::size_t>(deployment.pp) - 1;
  const StageLayers layers = stage_layers(architecture.decoder.size(), deployment.pp, deployment.extra_layers)[stage];
  StageOfTraining one{stage_architecture(architecture, layers), deployment, workload, {stage == 0, stage == last}};
  one.architecture.vocabulary = stage == 0 || stage == last ? architecture.vocabulary : 0;
  one.deployment.pp = 1;
  if (stage > 0) {
    one.architecture.position_embedding_parameters = 0;
    Architecture below = architecture;
    below.decoder.resize(layers.first);
    for (const PartWeights& part : part_weights(below, one.deployment, workload.training, {true, false})) {
      one.workload.training.input_gradient = one.workload.training.input_gradient || part.gradient_bytes > 0;
    }
  }
  return one;
}

double micro_batches_kept(const Deployment& deployment, const TrainingPlan& plan, std::size_t stage) {
  const std::int64_t behind = deployment.pp - static_cast<std::int64_t>(stage);
  return static_cast<double>(std::min(plan.accumulation, behind));
}

}  // namespace moecast
