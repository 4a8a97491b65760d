// How a router chooses among groups of experts.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/routing/assignment.h"

namespace moecast {
namespace {

/// Choices of groups, and orders in which one may come, that are tabulated at most.
constexpr double kMostSubsets = 512;
constexpr double kMostOrders = 720;

}  // namespace

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
  const auto kept = static_cast<std::size_t>(policy_.groups_kept);
  std::partial_sort(group_scores_.begin(), group_scores_.begin() + static_cast<std::ptrdiff_t>(kept),
                    group_scores_.end(), std::greater<>());
  chosen_groups_.clear();
  for (std::size_t i = 0; i < kept; ++i) chosen_groups_.push_back(group_scores_[i].second);
}

void Router::choose_groups(int count, Random& random) {
  chosen_groups_.clear();
  const auto is_chosen = [&](std::int32_t group) {
    return std::ranges::find(chosen_groups_, group) != chosen_groups_.end();
  };
  for (std::size_t tries = 2 * most_pairs(groups_.size(), count); std::ssize(chosen_groups_) < count && tries > 0;
       --tries) {
    const std::int32_t group = groups_(random);
    if (!is_chosen(group)) chosen_groups_.push_back(group);
  }
  while (std::ssize(chosen_groups_) < count) {
    double left = 0;
    for (std::int32_t group = 0; group < policy_.groups; ++group) {
      if (!is_chosen(group)) left += group_weights_[static_cast<std::size_t>(group)];
    }
    double at = random.uniform() * left;
    std::int32_t last = 0;
    for (std::int32_t group = 0; group < policy_.groups && at >= 0; ++group) {
      if (is_chosen(group)) continue;
      last = group;
      at -= group_weights_[static_cast<std::size_t>(group)];
    }
    chosen_groups_.push_back(last);
  }
}

void Router::draw_within(std::span<const std::int32_t> groups, int top_k, Random& random, Assignment& out) {
  double total = 0;
  for (const std::int32_t group : groups) total += group_weights_[static_cast<std::size_t>(group)];
  const auto each = within_.front().size();
  ++stamp_;
  int slot = 0;
  for (std::size_t tries = 2 * most_pairs(each * groups.size(), top_k); slot < top_k && tries > 0; --tries) {
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
  for (; slot < top_k; ++slot) out.expert.push_back(draw_left(groups, random));
}

void Router::draw_hierarchical(int top_k, Random& random, Assignment& out) {
  choose_groups(policy_.groups_kept, random);
  for (int i = 0; i < policy_.groups_kept; ++i) {
    draw_within(std::span(chosen_groups_).subspan(static_cast<std::size_t>(i), 1), share_of_group(top_k, i), random,
                out);
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
    subset_groups_.insert(subset_groups_.end(), groups.begin(), groups.end());
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
  const auto weight_of = [&](int group) { return group_weights_[static_cast<std::size_t>(group)]; };
  double others = 0;  // a sum of its own: little would be left of one less the weights of a skewed load
  for (int group = 0; group < policy_.groups; ++group) {
    if (std::ranges::find(groups, group) == groups.end()) others += weight_of(group);
  }
  double sum = 0;
  do {
    double left = others;
    double chance = 1;
    for (std::size_t i = groups.size(); i-- > 0;) {
      left += weight_of(groups[i]);
      chance *= weight_of(groups[i]) / left;
    }
    sum += chance;
  } while (std::next_permutation(groups.begin(), groups.end()));
  return sum;
}

void Router::draw_subset(int top_k, Random& random, Assignment& out) {
  const auto subset = static_cast<std::size_t>((*subsets_)(random));
  const auto kept = static_cast<std::size_t>(policy_.groups_kept);
  draw_from(subset_tables_[subset], std::span(subset_groups_).subspan(subset * kept, kept), top_k, random, out);
}

}  // namespace moecast
