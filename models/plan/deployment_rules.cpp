#include "models/plan/deployment_rules.h"

#include <algorithm>
#include <string>
#include <variant>

#include "models/core/error.h"

namespace moecast {

bool has_experts(const Architecture& architecture) {
  const auto expert_layer = [](const Layer& layer) {
    return std::ranges::any_of(layer.blocks,
                               [](const Block& block) { return std::holds_alternative<MoeBlock>(block); });
  };
  return std::ranges::any_of(architecture.decoder, expert_layer) ||
         std::ranges::any_of(architecture.encoder, expert_layer);
}

void require_consistent(const Architecture& architecture, const Deployment& d) {
  if (d.pp == 1 && d.micro_batches.value_or(1) > 1) {
    throw InputError("micro_batches", std::to_string(*d.micro_batches) + " need pipeline stages, there is one",
                     "write --pp 2 or more, or leave them out");
  }
  if (!has_experts(architecture)) return;
  const int ranks = stage_ranks(d);
  const std::string all = "tp x dp x cp = " + std::to_string(ranks);
  if (ranks % d.ep != 0) {
    throw InputError("ep", std::to_string(d.ep) + " ranks of experts do not divide the " + all + " ranks of the model",
                     "experts lie on the ranks that attention lies on: choose a degree that divides them");
  }
  if (d.ep * expert_tensor_ranks(d) != ranks) {
    throw InputError("moe_tp",
                     std::to_string(expert_tensor_ranks(d)) + " times ep = " + std::to_string(d.ep) + " is not " + all,
                     "leave it out: it follows from the others");
  }
}

std::string not_offered(const Architecture& architecture, const Deployment& d, const EngineSpec& engine) {
  const int ranks = stage_ranks(d);
  if (engine.mixed_expert_parallelism || !has_experts(architecture) || d.ep == 1 || d.ep == ranks) return {};
  return engine.name + " spreads experts over all " + std::to_string(ranks) +
         " ranks or over none: it does not run ep " + std::to_string(d.ep);
}

}  // namespace moecast
