#include "models/routing/group_limited_load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "models/core/error.h"
#include "models/routing/balanced_assignment.h"
#include "models/routing/power_law.h"

namespace moecast {
namespace {

constexpr int kRoutedDraws = 16;
constexpr std::int64_t kMostRoutedTokens = std::int64_t{1} << 40;
constexpr double kMostAlpha = 10;

/// Counts the rows of all experts, token by token that ask for the same experts.
class GroupRouter {
 public:
  GroupRouter(std::int64_t experts, const ExpertGroups& limit)
      : of_group_(experts / limit.groups),
        limit_(limit),
        rows_(static_cast<std::size_t>(experts), 0.0),
        taken_(rows_.size()),
        scores_(static_cast<std::size_t>(limit.groups)),
        order_(scores_.size()) {}

  void route(std::span<const std::int64_t> asked, double tokens) {
    std::fill(scores_.begin(), scores_.end(), 0);
    std::fill(taken_.begin(), taken_.end(), false);
    for (const std::int64_t expert : asked) {
      int& score = scores_[static_cast<std::size_t>(expert / of_group_)];
      score = std::min(score + 1, 2);
    }
    std::iota(order_.begin(), order_.end(), std::int64_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](std::int64_t a, std::int64_t b) {
      return scores_[static_cast<std::size_t>(a)] > scores_[static_cast<std::size_t>(b)];
    });
    const auto chosen = std::span(order_).first(static_cast<std::size_t>(limit_.chosen));
    std::sort(chosen.begin(), chosen.end());
    auto open = static_cast<std::int64_t>(asked.size());
    const auto take = [&](std::int64_t expert) {
      const auto at = static_cast<std::size_t>(expert);
      if (open == 0 || taken_[at]) return;
      taken_[at] = true;
      rows_[at] += tokens;
      --open;
    };
    for (const std::int64_t expert : asked) {
      if (std::ranges::find(chosen, expert / of_group_) != chosen.end()) take(expert);
    }
    for (const std::int64_t group : chosen) {
      for (std::int64_t i = 0; open > 0 && i < of_group_; ++i) take(group * of_group_ + i);
    }
  }

  [[nodiscard]] RankLoad first(std::int64_t experts) const {
    return rank_load_of(std::span(rows_).first(static_cast<std::size_t>(experts)));
  }

 private:
  std::int64_t of_group_;
  ExpertGroups limit_;
  std::vector<double> rows_;
  std::vector<bool> taken_;
  std::vector<int> scores_;
  std::vector<std::int64_t> order_;
};

RankLoad balanced_in_groups(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks,
                            const ExpertGroups& limit) {
  GroupRouter router(experts, limit);
  const BalancedAssignment assignment(tokens, top_k, experts);
  std::vector<std::int64_t> asked(static_cast<std::size_t>(top_k));
  // The assignment of a token repeats after `experts` tokens.
  for (std::int64_t pattern = 0; pattern < std::min(tokens, experts); ++pattern) {
    for (std::int64_t slot = 0; slot < top_k; ++slot) {
      asked[static_cast<std::size_t>(slot)] = assignment.expert(pattern, slot);
    }
    router.route(asked, static_cast<double>((tokens - pattern + experts - 1) / experts));
  }
  return router.first(experts / ranks);
}

/// Rows of every expert that sum to tokens x top_k, in no order.
std::vector<std::int64_t> draw(std::mt19937_64& random, std::int64_t tokens, std::int64_t top_k, std::int64_t experts,
                               double alpha) {
  const std::int64_t rows = tokens * top_k;
  const PowerLaw law(tokens, top_k, experts, alpha);
  std::vector<double> weights(static_cast<std::size_t>(experts));
  for (double& weight : weights) weight = law.weight(static_cast<double>(random() >> 11) * 0x1.0p-53);
  std::vector<std::int64_t> counts(weights.size());
  law.rows(weights, counts);
  // What rounding and the cap left over: to the emptiest first, from the fullest first.
  std::vector<std::size_t> order(counts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t e) { return counts[e]; });
  std::int64_t missing = rows - std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  while (missing != 0) {
    const std::int64_t each = std::max<std::int64_t>(1, std::abs(missing) / experts);
    for (std::size_t i = 0; i < order.size() && missing != 0; ++i) {
      std::int64_t& count = counts[missing > 0 ? order[i] : order[order.size() - 1 - i]];
      const std::int64_t room = missing > 0 ? tokens - count : count;
      const std::int64_t step = std::min({each, room, std::abs(missing)});
      count += missing > 0 ? step : -step;
      missing += missing > 0 ? -step : step;
    }
  }
  return counts;
}

/// The fullest rank's experts come first.
void rotate_fullest(std::vector<std::int64_t>& counts, std::int64_t ranks) {
  const auto local = static_cast<std::ptrdiff_t>(counts.size()) / ranks;
  std::ptrdiff_t fullest = 0;
  std::int64_t most = -1;
  for (std::ptrdiff_t first = 0; first < std::ssize(counts); first += local) {
    const std::int64_t rows = std::accumulate(counts.begin() + first, counts.begin() + first + local, std::int64_t{0});
    if (rows > most) fullest = first;
    most = std::max(most, rows);
  }
  std::rotate(counts.begin(), counts.begin() + fullest, counts.end());
}

RankLoad skewed_in_groups(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks,
                          double alpha, const ExpertGroups& limit) {
  std::mt19937_64 random(12345);
  RankLoad mean;
  for (int drawn = 0; drawn < kRoutedDraws; ++drawn) {
    std::vector<std::int64_t> counts = draw(random, tokens, top_k, experts, alpha);
    rotate_fullest(counts, ranks);
    std::vector<std::int64_t> popular(counts.size());
    std::iota(popular.begin(), popular.end(), std::int64_t{0});
    std::ranges::stable_sort(popular, std::ranges::greater{},
                             [&](std::int64_t e) { return counts[static_cast<std::size_t>(e)]; });
    // Slot j of token t is at place t + j T of the list in which every expert stands as often as it has rows: tokens
    // between two changes of any slot ask for the same experts.
    std::vector<std::int64_t> ends;
    std::int64_t end = 0;
    for (const std::int64_t e : popular) ends.push_back(end += counts[static_cast<std::size_t>(e)]);
    std::vector<std::int64_t> changes{0, tokens};
    for (const std::int64_t place : ends) changes.push_back(place % tokens);
    std::ranges::sort(changes);
    GroupRouter router(experts, limit);
    std::vector<std::int64_t> asked(static_cast<std::size_t>(top_k));
    for (std::size_t i = 0; i + 1 < changes.size(); ++i) {
      if (changes[i] == changes[i + 1]) continue;
      for (std::int64_t slot = 0; slot < top_k; ++slot) {
        const auto at = std::ranges::upper_bound(ends, changes[i] + slot * tokens) - ends.begin();
        asked[static_cast<std::size_t>(slot)] = popular[static_cast<std::size_t>(at)];
      }
      router.route(asked, static_cast<double>(changes[i + 1] - changes[i]));
    }
    const RankLoad one = router.first(experts / ranks);
    mean.rows += one.rows / kRoutedDraws;
    mean.distinct += one.distinct / kRoutedDraws;
    mean.fullest += one.fullest / kRoutedDraws;
  }
  return mean;
}

}  // namespace

RankLoad group_limited_load(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks,
                            double alpha, const ExpertGroups& limit) {
  static_cast<void>(timed_rank_load(1, top_k, experts, ranks, 0));  // refuses
  if (limit.groups < 1 || experts % limit.groups != 0 || limit.chosen < 1 || limit.chosen > limit.groups ||
      limit.chosen * (experts / limit.groups) < top_k) {
    throw InputError("", fmt::format("{} of {} groups of {} experts have no room for {} slots", limit.chosen,
                                     limit.groups, experts, top_k));
  }
  if (tokens < 1 || tokens > kMostRoutedTokens || !(alpha >= 0) || alpha > kMostAlpha) {
    throw InputError("", fmt::format("{} tokens of a power law of exponent {}", tokens, alpha),
                     "1 to 2^40 tokens, an exponent of 0 to 10");
  }
  return alpha == 0 ? balanced_in_groups(tokens, top_k, experts, ranks, limit)
                    : skewed_in_groups(tokens, top_k, experts, ranks, alpha, limit);
}

}  // namespace moecast
