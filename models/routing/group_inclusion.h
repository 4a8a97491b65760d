#pragma once
#include <span>
#include <vector>

#include "models/routing/group_limit.h"

namespace moecast {

/// Group-limited routing in closed form.
struct GroupInclusion {
  std::vector<double> chosen;  ///< P(a token chooses the expert), of each expert; they sum to top-k
  std::vector<double> kept;    ///< P(a token keeps the group), of each group
};

/// A token keeps groups by their popularity, then experts of these by theirs. The groups beside the one that an expert
/// is in are taken in their mean: within 4 % of each expert's draws for log-normal popularity.
/// @param popularity  of each expert, sums to 1. @throws InputError as inclusion_probability does.
GroupInclusion group_inclusion(std::span<const double> popularity, int top_k, const GroupLimit& limit);

}  // namespace moecast
