#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "models/routing/alias_table.h"

namespace moecast {

/// Which experts every token goes to, structure of arrays.
struct Assignment {
  int experts = 0;
  std::vector<std::int32_t> expert;  ///< of all (token, slot) pairs, token by token
  std::vector<std::uint32_t> first;  ///< tokens + 1 offsets into `expert`

  /// What was added to `expert` since the last token is this one's. @throws InputError beyond 2^32 - 1 rows.
  void end_token();
  [[nodiscard]] std::size_t tokens() const { return first.empty() ? 0 : first.size() - 1; }
  [[nodiscard]] std::span<const std::int32_t> of(std::size_t token) const {
    return std::span(expert).subspan(first[token], first[token + 1] - first[token]);
  }
  [[nodiscard]] std::vector<std::int64_t> rows_per_expert() const;
};

/// How a router decides.
///
/// token_choice: k distinct experts a token, drawn in turn by popularity. expert_choice: each expert takes T k / E
/// tokens or segments (rounded up). hash: expert = hash(token). hierarchical: `groups_kept` of `groups` coarse experts
/// by their popularity, then of each its share of k fine experts. dense: every expert.
enum class RoutingPolicyKind { token_choice, expert_choice, hash, hierarchical, dense };
std::optional<RoutingPolicyKind> find_routing_policy(std::string_view name);

/// Distribution of what is added to the router's scores.
enum class RoutingNoise { none, gaussian, uniform };

struct RoutingPolicy {
  RoutingPolicyKind kind = RoutingPolicyKind::token_choice;
  int top_k = 1;
  /// Probability of 0, 1, 2, ... experts a token (dynamic k); empty: always top_k. Where tokens choose by popularity.
  std::vector<double> top_k_distribution{};
  int groups = 1;       ///< equal groups of consecutive experts
  int groups_kept = 1;  ///< groups that a token uses, of `groups`; groups by the popularity of their experts
  RoutingNoise noise = RoutingNoise::none;
  /// Standard deviation, or half of the range, of what is added to ln(popularity). Where tokens choose by popularity.
  double noise_strength = 0;
  int tokens_per_decision = 1;  ///< segment or sequence that is routed as one
};

/// Draws assignments; keeps its tables, so that drawing again does not allocate.
class Router {
 public:
  /// @param popularity  selection weight of each expert, any scale.
  /// @throws InputError on top-k above the experts that can be chosen, groups that do not divide them, noise or a
  /// dynamic k where they would change nothing, ...
  Router(RoutingPolicy policy, std::span<const double> popularity);
  /// @param out  overwritten; keeps its capacity.
  void draw(std::int64_t tokens, Random& random, Assignment& out);
  [[nodiscard]] int experts() const { return static_cast<int>(popularity_.size()); }
  [[nodiscard]] const RoutingPolicy& policy() const { return policy_; }

 private:
  void draw_from(const AliasTable& table, std::span<const std::int32_t> groups, int top_k, Random& random,
                 Assignment& out);
  [[nodiscard]] std::int32_t draw_left(std::span<const std::int32_t> groups, Random& random);
  void draw_token(int top_k, Random& random, Assignment& out);
  void draw_subset(int top_k, Random& random, Assignment& out);
  void make_subsets(int kept);
  [[nodiscard]] double chance_of(std::vector<int> groups) const;
  void draw_noisy(bool by_group, int top_k, Random& random, Assignment& out);
  void keep_noisy_groups(Random& random);
  void draw_within(std::span<const std::int32_t> groups, int top_k, Random& random, Assignment& out);
  void choose_groups(int count, Random& random);
  void draw_expert_choice(std::int64_t tokens, Random& random, Assignment& out);
  /// Pairs of draws among so many, until which distinct ones are hoped for: about what drawing one of the rest takes.
  static std::size_t most_pairs(std::size_t count, int distinct) {
    return count / 2 + 2 * static_cast<std::size_t>(distinct);
  }
  void draw_hierarchical(int top_k, Random& random, Assignment& out);
  /// Fine experts of the i-th coarse one that is chosen: alike, what is left over to the first ones.
  [[nodiscard]] int share_of_group(int top_k, int i) const {
    return top_k / policy_.groups_kept + (i < top_k % policy_.groups_kept ? 1 : 0);
  }
  [[nodiscard]] int draw_top_k(Random& random) const;

  RoutingPolicy policy_;
  std::vector<double> popularity_;
  AliasTable experts_;
  AliasTable groups_;
  std::vector<AliasTable> within_;  ///< experts of each group
  std::optional<AliasTable> top_k_;
  std::vector<std::uint32_t> taken_;  ///< stamp of the token that last took an expert
  std::uint32_t stamp_ = 0;
  std::vector<std::int32_t> chosen_groups_;
  std::vector<double> group_weights_;  ///< sum to 1
  std::optional<AliasTable> subsets_;  ///< choices of groups, where they are few
  std::vector<AliasTable> subset_tables_;
  std::vector<std::int32_t> subset_groups_;  ///< of each subset, one after another
  std::vector<double> floored_;              ///< popularity, none below what keeps an expert in reach of its group
  std::vector<std::pair<double, std::int32_t>> scores_, group_scores_;
  std::vector<double> noisy_;  ///< ln(popularity) and noise of the token's experts
  std::vector<std::int32_t> order_;
  std::vector<std::pair<std::int32_t, std::int32_t>> pairs_;
};

/// What a capacity did.
struct CapacityOutcome {
  std::int64_t kept = 0;
  std::int64_t dropped = 0;
  std::int64_t moved = 0;   ///< to another expert (next best)
  std::int64_t queued = 0;  ///< to a later step
  std::int64_t padded = 0;  ///< empty slots that are computed
};
enum class CapacityOverflow { drop, pad, next_best, queue };

/// Cuts every expert to `slots` rows, in the order of the tokens. pad: as drop, and experts compute all slots.
/// next_best: what does not fit goes to the most popular expert with room that the token does not use; else it is
/// dropped. queue: what does not fit is taken out and counted as queued.
/// @param popularity  order of the next best.
CapacityOutcome limit_assignment(Assignment& assignment, std::int64_t slots, CapacityOverflow overflow,
                                 std::span<const double> popularity);

}  // namespace moecast
