#include "models/plan/weight_gathers.h"

#include <algorithm>
#include <variant>

namespace moecast {
namespace {

bool has_expert_block(const Layer& layer) {
  return std::ranges::any_of(layer.blocks, [](const Block& b) { return std::holds_alternative<MoeBlock>(b); });
}

}  // namespace

LayerCounts count_layers(const Architecture& architecture) {
  LayerCounts counts;
  for (const auto* stack : {&architecture.encoder, &architecture.decoder}) {
    counts.all += static_cast<double>(stack->size());
    counts.with_experts += static_cast<double>(std::ranges::count_if(*stack, has_expert_block));
  }
  return counts;
}

std::vector<WeightGather> weight_gathers(const std::array<PartWeights, kModelParts>& parts, const TrainingPlan& plan,
                                         bool tied, const LayerCounts& layers) {
  std::vector<WeightGather> gathers;
  WeightGather rest{"layers", 0, 1, layers.all, layers.all, true};
  for (std::size_t i = 0; i < kModelParts; ++i) {
    const PartWeights& part = parts[i];
    const double ranks = shares_of(plan, ZeroShare::weights, part);
    if (part.bytes <= 0 || ranks <= 1) continue;
    switch (static_cast<ModelPart>(i)) {
      case ModelPart::embedding: gathers.push_back({"embedding", part.bytes, ranks, 1, tied ? 1.0 : 0.0, false}); break;
      case ModelPart::head: gathers.push_back({"head", part.bytes, ranks, 1, 1, false}); break;
      case ModelPart::experts:
        gathers.push_back(
            {"experts", part.bytes / layers.with_experts, ranks, layers.with_experts, layers.with_experts, true});
        break;
      default: rest.bytes += part.bytes / layers.all; rest.ranks = ranks;
    }
  }
  if (rest.bytes > 0) gathers.push_back(rest);
  return gathers;
}

double reached_ratio(const OperatorGraph& forward, const std::vector<GradientNeed>& needs) {
  double reached = 0;
  double all = 0;
  for (std::size_t i = 0; i < needs.size(); ++i) {
    if (forward.operators[i].block < 0) continue;
    reached += needs[i].layer;
    all += forward.operators[i].count;
  }
  return all > 0 ? reached / all : 1;
}

}  // namespace moecast
