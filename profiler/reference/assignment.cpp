#include "profiler/reference/assignment.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moecast {
namespace {

float score(ScoreFunction function, float logit) {
  // softmax: the caller divides
  if (function == ScoreFunction::softmax) return std::exp(logit);
  if (function == ScoreFunction::sigmoid) return 1.0F / (1.0F + std::exp(-logit));
  return std::sqrt(logit > 30.0F ? logit : std::log1p(std::exp(logit)));
}

/// Score of one expert over that of another one of the same token.
float score_ratio(ScoreFunction function, float logit, float other) {
  if (function == ScoreFunction::softmax) return std::exp(logit - other);
  return score(function, logit) / score(function, other);
}

/// log of the sum of exponentials.
float log_sum(std::span<const float> logits) {
  const float top = *std::ranges::max_element(logits);
  float sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

/// What a token prefers experts by.
float preference(const RouterSpec& router, float logit, float log_divisor, float bias) {
  if (router.order == ScoreOrder::top_k_then_score) return logit + bias;
  return score(router.score, logit - log_divisor) + bias;
}

/// Best expert with room that does not run for the token yet, or -1.
std::int32_t next_best(const RouterSpec& router, std::span<const float> logits, std::span<const float> bias,
                       std::span<const std::int64_t> rows, std::int64_t slots, std::span<const std::int32_t> running,
                       std::span<const std::int32_t> refused) {
  const float log_divisor = router.score == ScoreFunction::softmax ? log_sum(logits) : 0.0F;
  std::int32_t best = -1;
  float best_key = 0;
  for (std::size_t e = 0; e < logits.size(); ++e) {
    const auto expert = static_cast<std::int32_t>(e);
    if (rows[e] >= slots || std::ranges::count(running, expert) > 0 || std::ranges::count(refused, expert) > 0)
      continue;
    const float key = preference(router, logits[e], log_divisor, bias.empty() ? 0.0F : bias[e]);
    if (best < 0 || key > best_key) {
      best = expert;
      best_key = key;
    }
  }
  return best;
}

}  // namespace

void apply_capacity(const RouterSpec& router, const CapacitySpec& capacity, std::int64_t slots,
                    std::span<const float> logits, std::span<const float> bias, TokenAssignment& assignment) {
  const auto k = static_cast<std::size_t>(assignment.slots);
  const auto experts = static_cast<std::size_t>(assignment.experts);
  std::ranges::fill(assignment.rows, 0);
  for (std::size_t t = 0; t < static_cast<std::size_t>(assignment.tokens); ++t) {
    const std::span<std::int32_t> chosen(assignment.expert_of.data() + t * k, k);
    const std::vector<std::int32_t> wanted(chosen.begin(), chosen.end());
    for (std::size_t j = 0; j < k; ++j) {
      const auto expert = static_cast<std::size_t>(chosen[j]);
      if (assignment.rows[expert] < slots) {
        ++assignment.rows[expert];
        continue;
      }
      std::int32_t other = -1;
      float& weight = assignment.weights[t * k + j];
      if (capacity.overflow == Overflow::next_best) {
        const std::span<const float> row = logits.subspan(t * experts, experts);
        other = next_best(router, row, bias, assignment.rows, slots, chosen, wanted);
        if (other >= 0) weight *= score_ratio(router.score, row[static_cast<std::size_t>(other)], row[expert]);
      }
      chosen[j] = other;
      if (other >= 0) {
        ++assignment.rows[static_cast<std::size_t>(other)];
      } else {
        weight = 0;
        ++assignment.dropped;
      }
    }
  }
}

void choose_tokens(const RouterSpec& router, std::span<const float> logits, std::int64_t slots,
                   TokenAssignment& assignment) {
  const auto experts = static_cast<std::size_t>(assignment.experts);
  const auto tokens = static_cast<std::size_t>(assignment.tokens);
  assignment.slots = static_cast<int>(experts);
  assignment.expert_of.assign(tokens * experts, -1);
  assignment.weights.assign(tokens * experts, 0);
  assignment.rows.assign(experts, slots);
  assignment.demanded = slots * assignment.experts;
  assignment.dropped = 0;
  std::vector<float> affinity(tokens * experts);
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::span<const float> row = logits.subspan(t * experts, experts);
    const float log_divisor = router.score == ScoreFunction::softmax ? log_sum(row) : 0.0F;
    for (std::size_t e = 0; e < experts; ++e) affinity[e * tokens + t] = score(router.score, row[e] - log_divisor);
  }
  std::vector<std::int32_t> order(tokens);
  for (std::size_t e = 0; e < experts; ++e) {
    const float* scores = affinity.data() + e * tokens;
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + slots, order.end(), [&](std::int32_t a, std::int32_t b) {
      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
    });
    for (std::int64_t s = 0; s < slots; ++s) {
      const auto t = static_cast<std::size_t>(order[static_cast<std::size_t>(s)]);
      assignment.expert_of[t * experts + e] = static_cast<std::int32_t>(e);
      assignment.weights[t * experts + e] = scores[t] * static_cast<float>(router.scale);
    }
  }
}

}  // namespace moecast
