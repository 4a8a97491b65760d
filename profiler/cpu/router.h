#pragma once
#include <cstdint>
#include <span>

#include "models/architecture/moe.h"

namespace moecast {

/// Scores and chooses: logits [tokens, experts] -> expert ids and gate weights [tokens, k].
///
/// Softmax before or after top-k, sigmoid with selection bias, group limits, renormalisation, scale as in `router`.
/// `bias` is empty or [experts]; `shift` is empty or [tokens, experts], added to the logits (how a benchmark plants the
/// routing it wants without touching inputs).
void route_top_k(const RouterSpec& router, std::span<const float> logits, std::span<const float> bias,
                 std::span<const float> shift, std::int64_t tokens, std::int64_t experts,
                 std::span<std::int32_t> expert_of, std::span<float> weights);

}  // namespace moecast
