#include "models/architecture/split.h"

#include <string>

#include "models/core/error.h"

namespace moecast {

MoeBlock split_experts(const MoeBlock& block, int parts) {
  if (parts < 1) throw InputError("", "experts cannot be split into " + std::to_string(parts) + " parts");
  if (parts > 1 && !block.router.top_k_distribution.empty()) {
    throw InputError("", "experts behind a distribution of top-k cannot be split");
  }
  MoeBlock fine = block;
  for (ExpertGroup& group : fine.experts) {
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

}  // namespace moecast
