#pragma once
#include <array>
#include <cstddef>
#include <memory>

#include "models/routing/group_limit.h"
#include "models/routing/load.h"
#include "models/routing/rank_load.h"

namespace moecast {

/// Load of the rank with the most rows, of a router of log-normal popularity with experts in their order: what
/// PlacedExperts draws token by token, faster. Rows of a rank and of an expert are taken to be normal around their
/// expectation: from 64 tokens on rows are within 7 % of the draws, touched experts within 10 %, the fullest within 20
/// %.
class FullestRank {
 public:
  /// @param sigma  of ln(popularity). @throws InputError when top_k exceeds the experts or ranks do not divide them.
  FullestRank(int experts, int top_k, int ranks, double sigma, const GroupLimit& limit = {});
  /// @param tokens  of all ranks, at least 1. Beyond the computed ones rows grow in proportion.
  [[nodiscard]] RankLoad at(double tokens) const;

 private:
  static constexpr std::size_t kPoints = 13;  ///< 1, 2, 4 to 4,096 tokens
  std::array<RankLoad, kPoints> loads_{};
};

/// The same for equal questions: computed once a process. Safe to ask from several threads.
std::shared_ptr<const FullestRank> fullest_rank(int experts, int top_k, int ranks, double sigma,
                                                const GroupLimit& limit = {});

}  // namespace moecast
