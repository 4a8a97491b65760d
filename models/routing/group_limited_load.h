#pragma once
#include <cstdint>

#include "models/routing/rank_load.h"

namespace moecast {

/// Groups of experts of which a token may use some (DeepSeek-V3: 4 of 8).
struct ExpertGroups {
  std::int64_t groups = 8;
  std::int64_t chosen = 4;
};

/// Load of the timed rank where the experts of a published law (timed_rank_load) are asked of a router with groups.
///
/// A group scores by its two best experts, of which a token asks for none, one or more; of equal groups the first is
/// chosen. Slots in chosen groups stay, the others fall to the first experts of the chosen groups that are free, for
/// all that was not asked for scores alike. Balanced: every token asks all groups for as much. Power law: experts are
/// dealt to tokens from the most to the least popular, the fullest rank comes first; mean of sixteen draws with a fixed
/// seed.
/// @throws InputError for what timed_rank_load refuses, and unless groups divide experts and have room for a token's
/// slots.
RankLoad group_limited_load(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks,
                            double alpha, const ExpertGroups& limit);

}  // namespace moecast
