#include "models/routing/assignment.h"

#include <algorithm>
#include <array>
#include <cmath>
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

/// Choices of groups, and orders in which one may come, that are tabulated at most.
constexpr double kMostSubsets = 512;
constexpr double kMostOrders = 720;

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

/// ln(weight) + this, the largest first, is what successive draws by weight are.
double gumbel(Random& random) { return -std::log(-std::log(random.uniform() + 1e-300)); }

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
  const bool one_group = policy_.kind == RoutingPolicyKind::hierarchical;
  need_routing(
      policy_.groups_kept >= 1 && policy_.groups_kept <= policy_.groups,
      std::to_string(policy_.groups_kept) + " of " + std::to_string(policy_.groups) + " groups cannot be kept");
  const int choices = one_group ? each : policy_.groups_kept < policy_.groups ? each * policy_.groups_kept : count;
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
  const bool by_popularity = policy_.kind == RoutingPolicyKind::token_choice || one_group;
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
      within_.emplace_back(weights);
    }
    group_weights_ = group_weights(popularity, policy_.groups);
    const double sum = std::accumulate(group_weights_.begin(), group_weights_.end(), 0.0);
    for (double& weight : group_weights_) weight /= sum;
    if (policy_.groups_kept < policy_.groups || one_group) make_subsets(one_group ? 1 : policy_.groups_kept);
  }
}

int Router::draw_top_k(Random& random) const { return top_k_ ? (*top_k_)(random) : policy_.top_k; }

/// Distinct experts, one after another by their weights.
void Router::draw_from(const AliasTable& table, int top_k, Random& random, Assignment& out) {
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
  while (slot < top_k) {
    const std::uint64_t bits = random();
    take(static_cast<std::uint32_t>(bits >> 32));
    if (slot < top_k) take(static_cast<std::uint32_t>(bits));
  }
}

void Router::draw_token(int top_k, Random& random, Assignment& out) { draw_from(experts_, top_k, random, out); }

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
  const std::size_t each = popularity_.size() / static_cast<std::size_t>(policy_.groups);
  if (by_group) keep_noisy_groups(random);
  scores_.clear();
  for (std::size_t e = 0; e < noisy_.size(); ++e) {
    const auto group = static_cast<std::int32_t>(e / each);
    if (by_group && std::ranges::find(chosen_groups_, group) == chosen_groups_.end()) continue;
    scores_.emplace_back(noisy_[e] + gumbel(random), static_cast<std::int32_t>(e));
  }
  std::partial_sort(scores_.begin(), scores_.begin() + top_k, scores_.end(), std::greater<>());
  for (int slot = 0; slot < top_k; ++slot) out.expert.push_back(scores_[static_cast<std::size_t>(slot)].second);
}

/// By the sums of their experts' noisy weights.
void Router::keep_noisy_groups(Random& random) {
  const std::size_t each = popularity_.size() / static_cast<std::size_t>(policy_.groups);
  group_scores_.clear();
  for (int group = 0; group < policy_.groups; ++group) {
    const auto begin = noisy_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(group) * each);
    const auto end = begin + static_cast<std::ptrdiff_t>(each);
    const double most = *std::max_element(begin, end);
    double sum = 0;
    std::for_each(begin, end, [&](double score) { sum += std::exp(score - most); });
    group_scores_.emplace_back(most + std::log(sum) + gumbel(random), group);
  }
  const auto kept = static_cast<std::size_t>(groups_chosen());
  std::partial_sort(group_scores_.begin(), group_scores_.begin() + static_cast<std::ptrdiff_t>(kept),
                    group_scores_.end(), std::greater<>());
  chosen_groups_.clear();
  for (std::size_t i = 0; i < kept; ++i) chosen_groups_.push_back(group_scores_[i].second);
}

void Router::choose_groups(int count, Random& random) {
  chosen_groups_.clear();
  while (static_cast<int>(chosen_groups_.size()) < count) {
    const std::int32_t group = groups_(random);
    if (std::find(chosen_groups_.begin(), chosen_groups_.end(), group) == chosen_groups_.end()) {
      chosen_groups_.push_back(group);
    }
  }
}

void Router::draw_within(std::span<const std::int32_t> groups, int top_k, Random& random, Assignment& out) {
  double total = 0;
  for (const std::int32_t group : groups) total += group_weights_[static_cast<std::size_t>(group)];
  const auto each = within_.front().size();
  ++stamp_;
  for (int slot = 0; slot < top_k;) {
    double at = random.uniform() * total;
    std::size_t i = 0;
    while (i + 1 < groups.size() && at >= group_weights_[static_cast<std::size_t>(groups[i])]) {
      at -= group_weights_[static_cast<std::size_t>(groups[i++])];
    }
    const auto group = static_cast<std::size_t>(groups[i]);
    const auto expert = static_cast<std::int32_t>(group * each) + within_[group](random);
    std::uint32_t& taken = taken_[static_cast<std::size_t>(expert)];
    if (taken == stamp_) continue;
    taken = stamp_;
    out.expert.push_back(expert);
    ++slot;
  }
}

/// Every choice of groups gets a table of its experts, as long as there are few choices.
void Router::make_subsets(int kept) {
  double choices = 1;
  double orders = 1;
  for (int i = 0; i < kept; ++i) {
    choices *= static_cast<double>(policy_.groups - i) / (i + 1);
    orders *= i + 1;
  }
  if (choices > kMostSubsets || orders > kMostOrders || policy_.groups > 64) return;
  const std::size_t each = popularity_.size() / static_cast<std::size_t>(policy_.groups);
  std::vector<int> groups(static_cast<std::size_t>(kept));
  std::iota(groups.begin(), groups.end(), 0);
  std::vector<double> chances;
  while (true) {
    chances.push_back(chance_of(groups));
    std::vector<double> weights;
    std::vector<std::int32_t> experts;
    for (const int group : groups) {
      const double floor = 1e-12 * (group_weights_[static_cast<std::size_t>(group)] + 1e-300);
      for (std::size_t i = 0; i < each; ++i) {
        const std::size_t expert = static_cast<std::size_t>(group) * each + i;
        experts.push_back(static_cast<std::int32_t>(expert));
        weights.push_back(std::max(popularity_[expert], floor));
      }
    }
    subset_tables_.emplace_back(weights, experts);
    // The next combination in lexicographic order.
    int at = kept - 1;
    while (at >= 0 && groups[static_cast<std::size_t>(at)] == policy_.groups - kept + at) --at;
    if (at < 0) break;
    ++groups[static_cast<std::size_t>(at)];
    for (int i = at + 1; i < kept; ++i)
      groups[static_cast<std::size_t>(i)] = groups[static_cast<std::size_t>(i) - 1] + 1;
  }
  subsets_.emplace(chances);
}

/// Probability that these groups are drawn one after another by their weights, in any order.
double Router::chance_of(std::vector<int> groups) const {
  double sum = 0;
  do {
    double left = 1;
    double chance = 1;
    for (const int group : groups) {
      const double weight = group_weights_[static_cast<std::size_t>(group)];
      chance *= left > 0 ? weight / left : 0;
      left -= weight;
    }
    sum += chance;
  } while (std::next_permutation(groups.begin(), groups.end()));
  return sum;
}

void Router::draw_subset(int top_k, Random& random, Assignment& out) {
  draw_from(subset_tables_[static_cast<std::size_t>((*subsets_)(random))], top_k, random, out);
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
    out.first.push_back(static_cast<std::uint32_t>(out.expert.size()));
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
      const bool by_group = policy_.groups > 1 && (policy_.kind == RoutingPolicyKind::hierarchical || limited);
      if (policy_.noise != RoutingNoise::none && policy_.noise_strength > 0) {
        draw_noisy(by_group, top_k, random, out);
      } else if (by_group) {
        if (subsets_) {
          draw_subset(top_k, random, out);
        } else {
          choose_groups(groups_chosen(), random);
          draw_within(chosen_groups_, top_k, random, out);
        }
      } else {
        draw_token(top_k, random, out);
      }
    }
    out.first.push_back(static_cast<std::uint32_t>(out.expert.size()));
  }
}

CapacityOutcome limit_assignment(Assignment& assignment, std::int64_t slots, CapacityOverflow overflow,
                                 std::span<const double> popularity) {
  CapacityOutcome outcome;
  const auto count = static_cast<std::size_t>(assignment.experts);
  std::vector<std::int64_t> rows(count, 0);
  std::vector<std::int32_t> best(count);
  std::iota(best.begin(), best.end(), 0);
  if (popularity.size() == count) {
    std::stable_sort(best.begin(), best.end(), [&](std::int32_t a, std::int32_t b) {
      return popularity[static_cast<std::size_t>(a)] > popularity[static_cast<std::size_t>(b)];
    });
  }
  std::vector<std::int32_t> kept;
  std::vector<std::uint32_t> first{0};
  for (std::size_t token = 0; token < assignment.tokens(); ++token) {
    const std::span<const std::int32_t> wanted = assignment.of(token);
    for (const std::int32_t expert : wanted) {
      std::int32_t chosen = expert;
      if (rows[static_cast<std::size_t>(expert)] >= slots) {
        chosen = -1;
        if (overflow == CapacityOverflow::next_best) {
          const auto begin = kept.begin() + first.back();
          const auto found = std::find_if(best.begin(), best.end(), [&](std::int32_t other) {
            return rows[static_cast<std::size_t>(other)] < slots &&
                   std::find(wanted.begin(), wanted.end(), other) == wanted.end() &&
                   std::find(begin, kept.end(), other) == kept.end();
          });
          if (found != best.end()) chosen = *found;
        }
        ++(chosen >= 0 ? outcome.moved : overflow == CapacityOverflow::queue ? outcome.queued : outcome.dropped);
      }
      if (chosen < 0) continue;
      ++rows[static_cast<std::size_t>(chosen)];
      ++outcome.kept;
      kept.push_back(chosen);
    }
    first.push_back(static_cast<std::uint32_t>(kept.size()));
  }
  if (overflow == CapacityOverflow::pad) {
    for (const std::int64_t used : rows) outcome.padded += slots - used;
  }
  assignment.expert = std::move(kept);
  assignment.first = std::move(first);
  return outcome;
}

}  // namespace moecast
