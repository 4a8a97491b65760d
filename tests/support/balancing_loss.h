#pragma once
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

#include "models/routing/assignment.h"

namespace moecast {

/// Popularity of experts after so many steps of gradient descent on the balancing loss of the Switch Transformer,
/// E * sum f_e P_e: f_e the share of rows that expert e got, P_e its mean gate probability. A gate whose logits are the
/// same for every token, which nothing else trains: d loss / d logit_e = E P_e (f_e - sum f P).
inline std::vector<double> after_balancing_loss(std::vector<double> popularity, int top_k, int steps, double rate) {
  const auto experts = static_cast<double>(popularity.size());
  for (int step = 0; step < steps; ++step) {
    RoutingPolicy policy;
    policy.top_k = top_k;
    Router router(policy, popularity);
    Random random(static_cast<std::uint64_t>(step) + 1);
    Assignment assignment;
    router.draw(2000, random, assignment);
    const std::vector<std::int64_t> rows = assignment.rows_per_expert();
    const auto all = static_cast<double>(assignment.expert.size());
    double mean = 0;
    for (std::size_t e = 0; e < rows.size(); ++e) mean += static_cast<double>(rows[e]) / all * popularity[e];
    for (std::size_t e = 0; e < rows.size(); ++e) {
      const double gradient = experts * popularity[e] * (static_cast<double>(rows[e]) / all - mean);
      popularity[e] *= std::exp(-rate * gradient);
    }
    const double sum = std::accumulate(popularity.begin(), popularity.end(), 0.0);
    for (double& p : popularity) p /= sum;
  }
  return popularity;
}

}  // namespace moecast
