#pragma once
#include <array>

#include "models/architecture/architecture.h"
#include "models/core/units.h"
#include "models/plan/deployment.h"
#include "models/plan/stages.h"
#include "models/plan/training.h"
#include "models/plan/workload.h"

namespace moecast {

/// Weights of one part of a model on one rank.
struct PartWeights {
  double parameters = 0;
  double bytes = 0;           ///< in the weights' own format
  double gradient_bytes = 0;  ///< where the part is trained
  double state_bytes = 0;     ///< of the optimiser, where the part is trained; not shared out yet
  double master_bytes = 0;    ///< of the fp32 copy, where it is trained and has one; not shared out yet
  double sharing_ranks = 1;   ///< ranks that hold the same weights and add up their gradients
};

/// By ModelPart. Experts are spread over ep * moe_tp ranks; the router, norms and gates are on every rank; all else is
/// split over tp. The same experts lie on one rank of each replica, everything else also on each of dp ranks.
/// A lone block has no norm. Parts of the model that are counted but not modelled (Architecture::other_parameters) are
/// in none.
/// @throws InputError when a degree does not divide what it splits.
/// @param ends  of a pipeline stage. Tied embeddings lie on both ends.
std::array<PartWeights, kModelParts> part_weights(const Architecture& architecture, const Deployment& deployment,
                                                  const TrainingPlan& plan, const StackEnds& ends = {});

/// Parts of ZeRO, by the first stage that shares it out.
enum class ZeroShare { states = 1, gradients = 2, weights = 3 };
/// Ranks that each keep a share of it; 1: every rank keeps all.
double shares_of(const TrainingPlan& plan, ZeroShare what, const PartWeights& part);

/// What training adds to the memory of a rank.
struct TrainingMemory {
  Bytes gradients;
  Bytes optimizer_states;   ///< fp32 copies of the weights included; a share of them from ZeRO-1 on
  Bytes saved_activations;  ///< of one micro-batch, kept from its forward to its backward pass
  Bytes weights_elsewhere;  ///< ZeRO-3: of the rank's weights those that others keep
  Bytes gathered;           ///< ZeRO-3: others' weights of the layer, or the table, that is being computed
};
TrainingMemory training_memory(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                               const StackEnds& ends = {});

}  // namespace moecast
