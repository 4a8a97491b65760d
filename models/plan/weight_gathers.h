#pragma once
#include <array>
#include <string>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/training_graph.h"
#include "models/plan/training_memory.h"

namespace moecast {

struct LayerCounts {
  double all = 0;
  double with_experts = 0;
};
LayerCounts count_layers(const Architecture& architecture);

/// Weights that travel together before a rank computes with them (ZeRO-3): a layer without its experts, its experts,
/// the embedding, the head.
struct WeightGather {
  std::string name;
  double bytes = 0;       ///< of one message, all ranks' shares together
  double ranks = 1;       ///< that each keep a share
  double forward = 0;     ///< messages of a forward pass
  double backward = 0;    ///< of a backward pass that reaches every layer
  bool of_layers = true;  ///< fewer where the backward pass reaches fewer layers
};

/// What a pass over a micro-batch gathers; empty below ZeRO-3. The embedding's gradient needs no weights, unless the
/// head has the same. @param tied  it has.
std::vector<WeightGather> weight_gathers(const std::array<PartWeights, kModelParts>& parts, const TrainingPlan& plan,
                                         bool tied, const LayerCounts& layers);

/// Of the layers, those that the backward pass reaches.
double reached_ratio(const OperatorGraph& forward, const std::vector<GradientNeed>& needs);

}  // namespace moecast
