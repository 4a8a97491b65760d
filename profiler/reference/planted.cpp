#include "profiler/reference/planted.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>

#include "models/core/error.h"

namespace moecast {
namespace {

/// The `count` largest of log(weight) + Gumbel noise among `candidates`: a draw without replacement.
std::vector<std::int32_t> gumbel_top(std::span<const double> weights, std::vector<std::int32_t> candidates, int count,
                                     std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform(1e-12, 1.0);
  std::vector<double> keys(weights.size());
  for (const std::int32_t c : candidates) {
    const double weight = std::max(weights[static_cast<std::size_t>(c)], 1e-300);
    keys[static_cast<std::size_t>(c)] = std::log(weight) - std::log(-std::log(uniform(random)));
  }
  std::partial_sort(candidates.begin(), candidates.begin() + count, candidates.end(),
                    [&](std::int32_t a, std::int32_t b) {
                      return keys[static_cast<std::size_t>(a)] > keys[static_cast<std::size_t>(b)];
                    });
  candidates.resize(static_cast<std::size_t>(count));
  return candidates;
}

std::vector<std::int32_t> iota_vector(std::int64_t size) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(size));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

}  // namespace

std::vector<std::int32_t> plant_popularity(const std::vector<double>& popularity, const RouterSpec& router,
                                           std::int64_t tokens, std::uint64_t seed) {
  const auto experts = static_cast<std::int64_t>(popularity.size());
  const std::int64_t per_group = experts / router.groups;
  std::vector<double> group_weight(static_cast<std::size_t>(router.groups), 0);
  for (std::int64_t e = 0; e < experts; ++e) {
    group_weight[static_cast<std::size_t>(e / per_group)] += popularity[static_cast<std::size_t>(e)];
  }
  std::mt19937_64 random(seed);
  std::vector<std::int32_t> out;
  out.reserve(static_cast<std::size_t>(tokens * router.top_k));
  const std::vector<std::int32_t> all = iota_vector(experts);
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::vector<std::int32_t> candidates = all;
    if (router.top_groups < router.groups) {
      candidates.clear();
      for (const std::int32_t g : gumbel_top(group_weight, iota_vector(router.groups), router.top_groups, random)) {
        for (std::int64_t i = 0; i < per_group; ++i) candidates.push_back(static_cast<std::int32_t>(g * per_group + i));
      }
    }
    const std::vector<std::int32_t> chosen = gumbel_top(popularity, std::move(candidates), router.top_k, random);
    out.insert(out.end(), chosen.begin(), chosen.end());
  }
  return out;
}

std::vector<std::int32_t> plant_histogram(std::span<const std::int64_t> rows_per_expert, std::int64_t tokens, int top_k,
                                          std::uint64_t seed) {
  std::vector<std::int64_t> left(rows_per_expert.begin(), rows_per_expert.end());
  const std::int64_t total = std::accumulate(left.begin(), left.end(), std::int64_t{0});
  if (total != tokens * top_k) {
    throw UsageError("rows_per_expert",
                     "sums to " + std::to_string(total) + ", but " + std::to_string(tokens) + " tokens choose " +
                         std::to_string(top_k) + " experts each",
                     "the sum must be tokens * top-k");
  }
  if (std::ranges::any_of(left, [&](std::int64_t rows) { return rows < 0 || rows > tokens; })) {
    throw UsageError("rows_per_expert", "an expert has more rows than there are tokens, or fewer than none",
                     "a token chooses an expert at most once");
  }
  std::mt19937_64 random(seed);
  std::vector<std::int32_t> order = iota_vector(static_cast<std::int64_t>(left.size()));
  std::vector<std::vector<std::int32_t>> chosen;
  for (std::int64_t t = 0; t < tokens; ++t) {
    // Taking the experts with the most rows left never runs into a dead end (Gale 1957, Ryser 1957).
    std::ranges::shuffle(order, random);
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(), [&](std::int32_t a, std::int32_t b) {
      return left[static_cast<std::size_t>(a)] > left[static_cast<std::size_t>(b)];
    });
    chosen.emplace_back(order.begin(), order.begin() + top_k);
    for (const std::int32_t e : chosen.back()) --left[static_cast<std::size_t>(e)];
  }
  std::ranges::shuffle(chosen, random);
  std::vector<std::int32_t> out;
  for (const std::vector<std::int32_t>& token : chosen) out.insert(out.end(), token.begin(), token.end());
  return out;
}

std::vector<float> shift_for(std::span<const std::int32_t> choices, std::int64_t tokens, std::int64_t experts) {
  std::vector<float> shift(static_cast<std::size_t>(tokens * experts), -kPlantedGap);
  const std::size_t top_k = choices.size() / static_cast<std::size_t>(tokens);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    shift[i / top_k * static_cast<std::size_t>(experts) + static_cast<std::size_t>(choices[i])] = 0;
  }
  return shift;
}

}  // namespace moecast
