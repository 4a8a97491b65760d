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

namespace {

/// Weights of fp8_block have a scale a block of 128 x 128: engines refuse slices of experts that cut through blocks.
std::string cut_blocks(const Architecture& architecture, const Deployment& d) {
  constexpr std::int64_t kBlock = 128;
  const DType dtype = d.dtype.value_or(architecture.expert_dtype.value_or(architecture.dtype));
  const int slices = expert_tensor_ranks(d);
  if (dtype != DType::fp8_block || slices <= 1) return {};
  for (const Layer& layer : architecture.decoder) {
    for (const Block& block : layer.blocks) {
      const auto* moe = std::get_if<MoeBlock>(&block);
      if (moe == nullptr) continue;
      for (const ExpertGroup& group : moe->experts) {
        if (group.expert.width % (kBlock * slices) == 0 || group.expert.width % kBlock != 0) continue;
        return "engines refuse slices of " + std::to_string(group.expert.width / slices) +
               " of an expert's width in fp8_block: its scales are of blocks of " + std::to_string(kBlock);
      }
    }
  }
  return {};
}

}  // namespace

std::string not_offered(const Architecture& architecture, const Deployment& d, const EngineSpec& engine) {
  if (std::string cut = cut_blocks(architecture, d); !cut.empty()) return cut;
  const int ranks = stage_ranks(d);
  if (engine.mixed_expert_parallelism || !has_experts(architecture) || d.ep == 1 || d.ep == ranks) return {};
  return engine.name + " spreads experts over all " + std::to_string(ranks) +
         " ranks or over none: it does not run ep " + std::to_string(d.ep);
}

}  // namespace moecast
