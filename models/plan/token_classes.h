#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/architecture/moe.h"
#include "models/plan/workload.h"

namespace moecast {

/// Tokens of a workload that may choose the same experts of a layer: those of a modality, of a task, or all.
struct TokenClass {
  std::string name;              ///< of the modality or task; empty where all tokens are alike
  double share = 1;              ///< of all tokens
  std::vector<bool> may_choose;  ///< each expert of the layer
  [[nodiscard]] std::int64_t experts() const;
};

/// Classes with a share above 0, at least one. Modalities: experts of a group without modality are for all; without
/// shares all tokens are of the modality of the first group. Tasks: shared and own private experts.
/// @throws InputError ("modality", "tasks"): shares that do not add up to 1, a modality for which there are no experts,
/// more private experts than the layer has, both kinds at once, or fewer experts than a token chooses.
std::vector<TokenClass> token_classes(const MoeBlock& block, const Workload& workload);

/// The block splits its experts by modality.
bool splits_by_modality(const MoeBlock& block);

/// P(a token of a class chooses the expert) of each expert: the workload's popularity among those it may choose.
std::vector<double> class_inclusion(const MoeBlock& block, const Workload& workload, const TokenClass& tokens);

/// The same for a token of the whole mix.
std::vector<double> mixed_inclusion(const MoeBlock& block, const Workload& workload);

/// P(a step of so many tokens uses the expert), tasks mixed in every step or one a step.
std::vector<double> mixed_touch_probability(const MoeBlock& block, const Workload& workload, double tokens);

}  // namespace moecast
