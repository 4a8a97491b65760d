#include "profiler/cpu/router.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

/// Score of every expert for one token, in place: softmax over all, sigmoid, or square root of softplus.
void score_row(const RouterSpec& router, std::span<float> row) {
  switch (router.score) {
    case ScoreFunction::softmax: {
      const float maximum = *std::max_element(row.begin(), row.end());
      float total = 0;
      for (float& x : row) total += x = std::exp(x - maximum);
      for (float& x : row) x /= total;
      return;
    }
    case ScoreFunction::sigmoid:
      for (float& x : row) x = 1.0F / (1.0F + std::exp(-x));
      return;
    case ScoreFunction::sqrt_softplus:
      for (float& x : row) x = std::sqrt(std::max(x, 0.0F) + std::log1p(std::exp(-std::abs(x))));
      return;
  }
}

/// Forbids all experts outside the `top_groups` groups with the largest sum of their two best experts (DeepSeek-V3);
/// groups of one expert count that one.
void limit_to_groups(const RouterSpec& router, std::span<float> choice) {
  const auto groups = static_cast<std::size_t>(router.groups);
  const std::size_t size = choice.size() / groups;
  std::vector<float> value(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    float best = kNever;
    float second = kNever;
    for (const float x : choice.subspan(g * size, size)) {
      if (x > best) {
        second = best;
        best = x;
      } else {
        second = std::max(second, x);
      }
    }
    value[g] = size > 1 ? best + second : best;
  }
  for (int kept = 0; kept < router.top_groups; ++kept) {
    value[static_cast<std::size_t>(std::max_element(value.begin(), value.end()) - value.begin())] = kNever;
  }
  for (std::size_t g = 0; g < groups; ++g) {
    if (value[g] != kNever) std::fill_n(choice.begin() + static_cast<std::ptrdiff_t>(g * size), size, kNever);
  }
}

/// The k largest of `choice`, largest first, the lower index first among equals; `choice` is used up.
void take_largest(std::span<float> choice, std::span<std::int32_t> ids) {
  for (std::int32_t& id : ids) {
    const auto best = std::max_element(choice.begin(), choice.end()) - choice.begin();
    id = static_cast<std::int32_t>(best);
    choice[static_cast<std::size_t>(best)] = kNever;
  }
}

void weigh(const RouterSpec& router, std::span<const float> score, std::span<const std::int32_t> ids,
           std::span<float> weights) {
  for (std::size_t j = 0; j < ids.size(); ++j) weights[j] = score[static_cast<std::size_t>(ids[j])];
  if (router.order == ScoreOrder::top_k_then_score) score_row(router, weights);
  if (router.renormalise && router.order == ScoreOrder::score_then_top_k) {
    float total = 0;
    for (const float w : weights) total += w;
    for (float& w : weights) w /= total;
  }
  const auto scale = static_cast<float>(router.scale);
  for (float& w : weights) w *= scale;
}

}  // namespace

void route_top_k(const RouterSpec& router, std::span<const float> logits, std::span<const float> bias,
                 std::span<const float> shift, std::int64_t tokens, std::int64_t experts,
                 std::span<std::int32_t> expert_of, std::span<float> weights) {
  const auto e = static_cast<std::size_t>(experts);
  const auto k = static_cast<std::size_t>(router.top_k);
  if (router.top_k < 1 || router.top_k > experts) {
    throw InputError("", "top-k is " + std::to_string(router.top_k) + ", expected 1 to " + std::to_string(experts));
  }
  assert(logits.size() >= static_cast<std::size_t>(tokens) * e &&
         expert_of.size() >= static_cast<std::size_t>(tokens) * k);
  std::vector<float> score(e);
  std::vector<float> choice(e);
  for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) {
    std::copy_n(logits.begin() + static_cast<std::ptrdiff_t>(t * e), e, score.begin());
    if (!shift.empty()) {
      for (std::size_t i = 0; i < e; ++i) score[i] += shift[t * e + i];
    }
    if (router.order == ScoreOrder::score_then_top_k) score_row(router, score);
    choice = score;
    if (!bias.empty()) {
      for (std::size_t i = 0; i < e; ++i) choice[i] += bias[i];
    }
    if (router.groups > 1 && router.top_groups < router.groups) limit_to_groups(router, choice);
    const auto ids = expert_of.subspan(t * k, k);
    take_largest(choice, ids);
    weigh(router, score, ids, weights.subspan(t * k, k));
  }
}

}  // namespace moecast
