#pragma once
#include <vector>

#include "models/routing/group_limit.h"

namespace moecast {

/// Experts that a step touches on the rank that touches most, for a router of log-normal expert popularity, experts
/// contiguous. Seeded; equal arguments are drawn once a process.
class DistinctExperts {
 public:
  /// @param sigma  of ln(popularity). @throws InputError when top_k exceeds the experts or ranks do not divide them.
  DistinctExperts(int experts, int top_k, int ranks, double sigma, const GroupLimit& limit = {});
  /// @param tokens  of all ranks, above 0; constant above the largest drawn (1,024).
  [[nodiscard]] double at(double tokens) const;

 private:
  std::vector<double> log_tokens_, experts_;
};

/// Spread of ln(popularity) that trained routers show on real text.
inline constexpr double kUsualPopularitySigma = 1.0;

}  // namespace moecast
