#include "models/architecture/split.h"

#include <string>
#include <variant>
#include <vector>

#include "models/core/error.h"

namespace moecast {

MoeBlock split_experts(const MoeBlock& block, int parts) {
  if (parts < 1) throw InputError("", "experts cannot be split into " + std::to_string(parts) + " parts");
  if (parts > 1 && !block.router.top_k_distribution.empty()) {
    throw InputError("", "experts behind a distribution of top-k cannot be split");
  }
  MoeBlock fine = block;
  if (parts == 1) return fine;
  for (ExpertGroup& group : fine.experts) {
    if (group.expert.kind != ExpertKind::ffn && group.expert.kind != ExpertKind::identity) {
      throw InputError("", "experts that are more than feed-forward networks cannot be split");
    }
    if (group.expert.width % parts != 0) {
      throw InputError(
          "", std::to_string(parts) + " parts do not divide an expert of width " + std::to_string(group.expert.width));
    }
    group.count *= parts;
    group.expert.width /= parts;
  }
  fine.router.top_k *= parts;
  return fine;
}

Architecture split_experts(Architecture architecture, int parts) {
  for (std::vector<Layer>* stack :
       {&architecture.encoder, &architecture.decoder, &architecture.multi_token_prediction}) {
    for (Layer& layer : *stack) {
      for (Block& block : layer.blocks) {
        if (auto* moe = std::get_if<MoeBlock>(&block)) *moe = split_experts(*moe, parts);
      }
    }
  }
  return architecture;
}

}  // namespace moecast
