#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "models/routing/group_limit.h"
#include "models/routing/load.h"
#include "models/routing/rank_load.h"

namespace moecast {

/// @throws InputError when ranks do not divide experts and copies, or there are more copies than ranks can hold apart.
void check_copies(std::int64_t experts, std::int64_t ranks, std::int64_t copies);

/// What the fullest rank gets. Without copies experts lie in their order, as many on each rank. With copies an engine
/// that knows how popular experts are places them so that ranks are as equally loaded as whole copies allow, and deals
/// an expert's rows to its copies in turn.
///
/// Routing is Gumbel top-k; means of draws with fixed seeds. The rank with the most rows counts. Who is popular differs
/// from draw to draw, but for recorded loads, whose experts are where they are.
class PlacedExperts {
 public:
  /// @param copies  beside the experts' own places; ranks divide experts + copies.
  /// @throws InputError as check_copies.
  PlacedExperts(int experts, int top_k, int ranks, int copies, const ExpertLoad& load, const GroupLimit& limit = {});

  /// @param tokens  of all ranks, at least 1. Beyond the drawn ones rows grow in proportion.
  [[nodiscard]] RankLoad at(double tokens) const;
  /// Rows of the fullest rank over those where experts are chosen alike, which tables of exchanges know; at least 1.
  [[nodiscard]] double imbalance(double tokens) const;
  /// Tokens that reach the fullest node of 8 ranks, likewise.
  [[nodiscard]] double node_imbalance(double tokens) const;

 private:
  /// Fullest over mean at so many tokens, where experts are popular and where they are chosen alike.
  struct Fullest {
    std::vector<double> popular, even;
  };
  [[nodiscard]] double beyond_even(const Fullest& fullest, double tokens) const;

  std::vector<double> log_tokens_;
  std::vector<RankLoad> loads_;
  Fullest rank_, node_;
};

/// The same for equal questions: drawn once a process. Safe to ask from several threads.
std::shared_ptr<const PlacedExperts> placed_experts(int experts, int top_k, int ranks, int copies,
                                                    const ExpertLoad& load, const GroupLimit& limit = {});

}  // namespace moecast
