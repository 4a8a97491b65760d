#pragma once
#include <vector>

#include "models/routing/rank_load.h"

namespace moecast {

/// What the fullest rank gets when popular experts have copies: an engine that knows how popular experts are places
/// copies so that ranks are as equally loaded as whole copies allow, and deals an expert's rows to its copies in turn.
///
/// Popularity is log-normal, routing Gumbel top-k; means of draws with fixed seeds. The rank with the most rows counts.
class BalancedExperts {
 public:
  /// @param copies  beside the experts' own places; ranks divide experts + copies.
  /// @throws InputError at "redundant_experts" when they do not, or there are more copies than ranks can hold apart.
  BalancedExperts(int experts, int top_k, int ranks, int copies, double sigma);

  /// @param tokens  of all ranks, at least 1. Beyond the drawn ones rows grow in proportion.
  [[nodiscard]] RankLoad at(double tokens) const;

 private:
  std::vector<double> log_tokens_;
  std::vector<RankLoad> loads_;
};

}  // namespace moecast
