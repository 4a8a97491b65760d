#pragma once
#include "models/architecture/architecture.h"
#include "models/architecture/moe.h"

namespace moecast {

/// Finer experts (DeepSeekMoE): every expert becomes `parts` of a `parts`-th of its width, and a token uses `parts`
/// times as many. Parameters but the router's and FLOPs of a token stay; calls, copies of tokens and touched experts
/// grow.
/// @throws InputError if `parts` does not divide every width, experts are more than feed-forward networks, or top-k is
/// a distribution.
MoeBlock split_experts(const MoeBlock& block, int parts);

/// The same of every MoE block of a model.
Architecture split_experts(Architecture architecture, int parts);

}  // namespace moecast
