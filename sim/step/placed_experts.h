#pragma once
#include <vector>

#include "models/routing/rank_load.h"

namespace moecast {

/// What the fullest rank gets. Without copies experts lie in their order, as many on each rank. With copies an engine
/// that knows how popular experts are places them so that ranks are as equally loaded as whole copies allow, and deals
/// an expert's rows to its copies in turn.
///
/// Popularity is log-normal, routing Gumbel top-k; means of draws with fixed seeds. The rank with the most rows counts.
class PlacedExperts {
 public:
  /// @param copies  beside the experts' own places; ranks divide experts + copies.
  /// @throws InputError at "redundant_experts" when they do not, or there are more copies than ranks can hold apart.
  PlacedExperts(int experts, int top_k, int ranks, int copies, double sigma);

  /// @param tokens  of all ranks, at least 1. Beyond the drawn ones rows grow in proportion.
  [[nodiscard]] RankLoad at(double tokens) const;
  /// Rows of the fullest rank over those of the mean one, at least 1.
  [[nodiscard]] double imbalance(double tokens) const;
  /// Tokens that reach the fullest node of `kNodeDevices` ranks over those that reach the mean one, at least 1.
  [[nodiscard]] double node_imbalance(double tokens) const;

 private:
  double mean_rows_;  ///< of a rank, a token
  std::vector<double> log_tokens_;
  std::vector<RankLoad> loads_;
  std::vector<double> node_imbalance_;
};

}  // namespace moecast
