#include "models/routing/assignment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "models/core/error.h"

namespace moecast {
namespace {

struct NamedPolicy {
  std::string_view name;
  RoutingPolicyKind kind;
};
constexpr std::array<NamedPolicy, 5> kPolicies{{{"token-choice", RoutingPolicyKind::token_choice},
                                                {"expert-choice", RoutingPolicyKind::expert_choice},
                                                {"hash", RoutingPolicyKind::hash},
                                                {"hierarchical", RoutingPolicyKind::hierarchical},
                                                {"dense", RoutingPolicyKind::dense}}};

void need_routing(bool holds, const std::string& what) {
  if (!holds) throw InputError("routing", what, "see moecast routing --help");
}

std::vector<double> group_weights(std::span<const double> popularity, int groups) {
  need_routing(groups >= 1 && popularity.size() % static_cast<std::size_t>(std::max(groups, 1)) == 0,
               std::to_string(popularity.size()) + " experts do not divide into " + std::to_string(groups) + " groups");
  const std::size_t each = popularity.size() / static_cast<std::size_t>(groups);
  std::vector<double> weights;
  for (std::size_t g = 0; g < static_cast<std::size_t>(groups); ++g) {
    const auto begin = popularity.begin() + static_cast<std::ptrdiff_t>(g * each);
    weights.push_back(std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(each), 0.0));
  }
  // A group that nobody wants stays in reach of tokens that have to keep several.
  const double floor = 1e-12 * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight = std::max(weight, floor);
  return weights;
}

/// A number that depends on the token alone, evenly spread.
std::uint64_t hash_of(std::uint64_t token) {
  Random random(token);
  return random();
}

}  // namespace

std::optional<RoutingPolicyKind> find_routing_policy(std::string_view name) {
  for (const NamedPolicy& policy : kPolicies) {
    if (policy.name == name) return policy.kind;
  }
  return std::nullopt;
}

void Assignment::end_token() {
  if (expert.size() > std::numeric_limits<std::uint32_t>::max()) {
    need_routing(false, "tokens choose more than 2^32 - 1 experts");
  }
  first.push_back(static_cast<std::uint32_t>(expert.size()));
}

std::vector<std::int64_t> Assignment::rows_per_expert() const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(experts), 0);
  for (const std::int32_t e : expert) ++rows[static_cast<std::size_t>(e)];
  return rows;
}

Router::Router(RoutingPolicy policy, std::span<const double> popularity)
    : policy_(std::move(policy)),
      popularity_(popularity.begin(), popularity.end()),
      experts_(popularity),
      groups_(group_weights(popularity, policy_.groups)),
      taken_(popularity.size(), 0) {
  const auto count = static_cast<int>(popularity.size());
  const int each = count / policy_.groups;
  const bool hierarchical = policy_.kind == RoutingPolicyKind::hierarchical;
  need_routing(
      policy_.groups_kept >= 1 && policy_.groups_kept <= policy_.groups,
      std::to_string(policy_.groups_kept) + " of " + std::to_string(policy_.groups) + " groups cannot be kept");
  const int choices = each * policy_.groups_kept;
  int most = policy_.top_k;
  if (!policy_.top_k_distribution.empty()) {
    top_k_.emplace(policy_.top_k_distribution);
    most = static_cast<int>(policy_.top_k_distribution.size()) - 1;
  }
  need_routing(most >= 1 && most <= choices, "top-k is " + std::to_string(most) + ", but a token can choose among " +
                                                 std::to_string(choices) + " experts");
  const auto usable = std::count_if(popularity.begin(), popularity.end(), [](double weight) { return weight > 0; });
  need_routing(policy_.kind != RoutingPolicyKind::token_choice || most <= usable,
               "top-k is " + std::to_string(most) + ", but only " + std::to_string(usable) +
                   " experts have a popularity above 0");
  need_routing(policy_.tokens_per_decision >= 1, "a decision needs at least one token");
  need_routing(std::isfinite(policy_.noise_strength) && policy_.noise_strength >= 0, "noise must not be negative");
  const bool by_popularity = policy_.kind == RoutingPolicyKind::token_choice || hierarchical;
  need_routing(by_popularity || policy_.noise == RoutingNoise::none || policy_.noise_strength == 0,
               "noise changes nothing where tokens do not choose experts by popularity");
  need_routing(by_popularity || policy_.top_k_distribution.empty(),
               "the number of experts varies only where tokens choose them by popularity");
  if (policy_.groups > 1) {
    for (int g = 0; g < policy_.groups; ++g) {
      // An expert that nobody wants stays in reach of a group that was chosen.
      std::vector<double> weights(popularity.begin() + g * each, popularity.begin() + (g + 1) * each);
      const double floor = 1e-12 * (std::accumulate(weights.begin(), weights.end(), 0.0) + 1e-300);
      for (double& weight : weights) weight = std::max(weight, floor);
      floored_.insert(floored_.end(), weights.begin(), weights.end());
      within_.emplace_back(weights);
    }
    group_weights_ = group_weights(popularity, policy_.groups);
    const double sum = std::accumulate(group_weights_.begin(), group_weights_.end(), 0.0);
    for (double& weight : group_weights_) weight /= sum;
    // Coarse experts that are chosen together each give their share: no table of both.
    if (hierarchical ? policy_.groups_kept == 1 : policy_.groups_kept < policy_.groups)
      make_subsets(policy_.groups_kept);
  }
}

int Router::draw_top_k(Random& random) const { return top_k_ ? (*top_k_)(random) : policy_.top_k; }

/// Distinct experts, one after another by their weights: draws that meet a taken expert are repeated, so many times,
/// and the rest is drawn from those that are left.
void Router::draw_from(const AliasTable& table, std::span<const std::int32_t> groups, int top_k, Random& random,
                       Assignment& out) {
  const std::uint32_t stamp = ++stamp_;
  const std::size_t start = out.expert.size();
  out.expert.resize(start + static_cast<std::size_t>(top_k));
  std::int32_t* const chosen = out.expert.data() + start;
  std::uint32_t* const taken = taken_.data();
  int slot = 0;
  const auto take = [&](std::uint32_t bits) {
    const std::int32_t expert = table.at(bits);
    chosen[slot] = expert;  // one that was taken before is overwritten
    slot += static_cast<int>(taken[expert] != stamp);
    taken[expert] = stamp;
  };
  for (std::size_t pairs = most_pairs(table.size(), top_k); slot < top_k && pairs > 0; --pairs) {
    const std::uint64_t bits = random();
    take(static_cast<std::uint32_t>(bits >> 32));
    if (slot < top_k) take(static_cast<std::uint32_t>(bits));
  }
  for (; slot < top_k; ++slot) chosen[slot] = draw_left(groups, random);
}

/// One expert of those that the token has not taken, by weight. @param groups  it may use; empty: all.
std::int32_t Router::draw_left(std::span<const std::int32_t> groups, Random& random) {
  const std::size_t each = popularity_.size() / static_cast<std::size_t>(policy_.groups);
  const std::vector<double>& weights = groups.empty() ? popularity_ : floored_;
  const auto visit = [&](const auto& see) {
    const std::size_t count = groups.empty() ? static_cast<std::size_t>(policy_.groups) : groups.size();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t first = (groups.empty() ? i : static_cast<std::size_t>(groups[i])) * each;
      for (std::size_t e = first; e < first + each; ++e) {
        if (taken_[e] != stamp_ && weights[e] > 0 && !see(e)) return;
      }
    }
  };
  double left = 0;
  visit([&](std::size_t e) {
    left += weights[e];
    return true;
  });
  double at = random.uniform() * left;
  std::size_t chosen = 0;
  visit([&](std::size_t e) {
    chosen = e;  // the last one, where rounding leaves a rest
    at -= weights[e];
    return at >= 0;
  });
  taken_[chosen] = stamp_;
  return static_cast<std::int32_t>(chosen);
}

void Router::draw_token(int top_k, Random& random, Assignment& out) { draw_from(experts_, {}, top_k, random, out); }

void Router::draw_noisy(bool by_group, int top_k, Random& random, Assignment& out) {
  noisy_.clear();
  for (const double popularity : popularity_) {
    double noise = 0;
    if (policy_.noise == RoutingNoise::gaussian) {
      constexpr double kTwoPi = 6.283185307179586;
      noise = std::sqrt(-2 * std::log(1 - random.uniform())) * std::cos(kTwoPi * random.uniform());
    } else {
      noise = 2 * random.uniform() - 1;
    }
    noisy_.push_back(std::log(popularity + 1e-300) + policy_.noise_strength * noise);
  }
  const auto each = static_cast<std::int32_t>(popularity_.size() / static_cast<std::size_t>(policy_.groups));
  const auto score = [&](std::int32_t first, std::int32_t count) {
    for (std::int32_t e = first; e < first + count; ++e)
      scores_.emplace_back(noisy_[static_cast<std::size_t>(e)] + gumbel(random), e);
  };
  const auto take = [&](int count) {
    std::partial_sort(scores_.begin(), scores_.begin() + count, scores_.end(), std::greater<>());
    for (int slot = 0; slot < count; ++slot) out.expert.push_back(scores_[static_cast<std::size_t>(slot)].second);
    scores_.clear();
  };
  scores_.clear();
  if (!by_group) {
    score(0, experts());
    return take(top_k);
  }
  keep_noisy_groups(random);
  if (policy_.kind == RoutingPolicyKind::hierarchical) {
    for (int i = 0; i < policy_.groups_kept; ++i) {
      score(chosen_groups_[static_cast<std::size_t>(i)] * each, each);
      take(share_of_group(top_k, i));
    }
    return;
  }
  std::ranges::sort(chosen_groups_);
  for (const std::int32_t group : chosen_groups_) score(group * each, each);
  take(top_k);
}

/// Experts choose whole decisions: tokens, or segments of them.
void Router::draw_expert_choice(std::int64_t tokens, Random& random, Assignment& out) {
  const auto count = static_cast<std::int64_t>(popularity_.size());
  const std::int64_t unit = policy_.tokens_per_decision;
  const std::int64_t decisions = (tokens + unit - 1) / unit;
  const std::int64_t slots = std::min(decisions, (decisions * policy_.top_k + count - 1) / count);
  order_.resize(static_cast<std::size_t>(decisions));
  std::iota(order_.begin(), order_.end(), 0);
  pairs_.clear();
  for (std::int64_t e = 0; e < count; ++e) {
    for (std::int64_t i = 0; i < slots; ++i) {
      const auto left = static_cast<std::uint32_t>(decisions - i);
      std::swap(order_[static_cast<std::size_t>(i)], order_[static_cast<std::size_t>(i) + random.below(left)]);
      pairs_.emplace_back(order_[static_cast<std::size_t>(i)], static_cast<std::int32_t>(e));
    }
  }
  std::sort(pairs_.begin(), pairs_.end());
  std::size_t next = 0;
  for (std::int64_t token = 0; token < tokens; ++token) {
    if (token % unit == 0) {
      while (next < pairs_.size() && pairs_[next].first < token / unit) ++next;
    }
    for (std::size_t i = next; i < pairs_.size() && pairs_[i].first == token / unit; ++i) {
      out.expert.push_back(pairs_[i].second);
    }
    out.end_token();
  }
}

void Router::draw(std::int64_t tokens, Random& random, Assignment& out) {
  need_routing(tokens >= 0 && tokens <= (std::int64_t{1} << 31), "tokens must lie between 0 and 2^31");
  out.experts = experts();
  out.expert.clear();
  out.first.clear();
  out.first.push_back(0);
  if (policy_.kind == RoutingPolicyKind::expert_choice) return draw_expert_choice(tokens, random, out);
  const bool limited = policy_.groups_kept < policy_.groups;
  const bool hierarchical = policy_.kind == RoutingPolicyKind::hierarchical;
  for (std::int64_t token = 0; token < tokens; ++token) {
    const std::size_t before = out.first.back();
    if (token % policy_.tokens_per_decision != 0) {
      // The decision of the segment's first token.
      const std::size_t start = out.first[out.first.size() - 2];
      for (std::size_t i = start; i < before; ++i) out.expert.push_back(out.expert[i]);
    } else if (policy_.kind == RoutingPolicyKind::dense) {
      for (int e = 0; e < experts(); ++e) out.expert.push_back(e);
    } else if (policy_.kind == RoutingPolicyKind::hash) {
      const auto count = static_cast<std::uint64_t>(experts());
      const std::uint64_t first = hash_of(static_cast<std::uint64_t>(token));
      for (int slot = 0; slot < policy_.top_k; ++slot) {
        out.expert.push_back(static_cast<std::int32_t>((first + static_cast<std::uint64_t>(slot)) % count));
      }
    } else {
      const int top_k = draw_top_k(random);
      const bool by_group = policy_.groups > 1 && (hierarchical || limited);
      if (policy_.noise != RoutingNoise::none && policy_.noise_strength > 0) {
        draw_noisy(by_group, top_k, random, out);
      } else if (by_group) {
        if (hierarchical && policy_.groups_kept > 1) {
          draw_hierarchical(top_k, random, out);
        } else if (subsets_) {
          draw_subset(top_k, random, out);
        } else {
          choose_groups(policy_.groups_kept, random);
          draw_within(chosen_groups_, top_k, random, out);
        }
      } else {
        draw_token(top_k, random, out);
      }
    }
    out.end_token();
  }
}

}  // namespace moecast
