#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/architecture/moe.h"

namespace moecast {

/// Logit of a chosen expert over one that is not: no score and no selection bias bridges it.
inline constexpr float kPlantedGap = 60.0F;

/// Experts [tokens, top_k] that tokens choose by Gumbel top-k of `popularity` (distinct a token). With group limits a
/// token first chooses router.top_groups groups by their summed popularity, then experts inside them.
std::vector<std::int32_t> plant_popularity(const std::vector<double>& popularity, const RouterSpec& router,
                                           std::int64_t tokens, std::uint64_t seed);

/// Experts [tokens, top_k] whose histogram is exactly `rows_per_expert`, distinct a token, in a random order of tokens.
/// @throws UsageError where that is impossible: another sum than tokens * top_k, or more rows than tokens.
std::vector<std::int32_t> plant_histogram(std::span<const std::int64_t> rows_per_expert, std::int64_t tokens, int top_k,
                                          std::uint64_t seed);

/// [tokens, experts] to be added to the logits so that exactly `choices` [tokens, top_k] are chosen: 0 or -kPlantedGap.
std::vector<float> shift_for(std::span<const std::int32_t> choices, std::int64_t tokens, std::int64_t experts);

}  // namespace moecast
