#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace moecast {

/// Which ranks hold each expert. The tokens of an expert with several copies are split evenly over them.
class Placement {
 public:
  /// @param ranks_of_expert  ranks of each expert's copies. @throws InputError on an expert without a rank, a rank out
  /// of range, or a rank that holds an expert twice.
  Placement(int ranks, const std::vector<std::vector<std::int32_t>>& ranks_of_expert);

  [[nodiscard]] int ranks() const { return ranks_; }
  [[nodiscard]] int experts() const { return static_cast<int>(first_.size()) - 1; }
  [[nodiscard]] std::span<const std::int32_t> ranks_of(int expert) const {
    const auto at = static_cast<std::size_t>(expert);
    return std::span(copies_).subspan(first_[at], first_[at + 1] - first_[at]);
  }
  /// Copies of experts that a rank holds, ascending.
  [[nodiscard]] std::vector<std::int32_t> experts_of(int rank) const;
  [[nodiscard]] std::size_t copies() const { return copies_.size(); }
  /// Rows of each rank for rows of each expert.
  [[nodiscard]] std::vector<double> rows_per_rank(std::span<const double> rows_per_expert) const;

 private:
  int ranks_;
  std::vector<std::int32_t> copies_;
  std::vector<std::uint32_t> first_;
};

/// How a layer's experts are laid over ranks. balanced: by their load, with replicas (EPLB); servers: all on the first
/// ranks, the others only send; map: as it says.
enum class PlacementKind { contiguous, round_robin, node_aware, balanced, servers, map };
std::optional<PlacementKind> find_placement_kind(std::string_view name);

struct PlacementSpec {
  PlacementSpec() = default;
  PlacementSpec(PlacementKind asked) : kind(asked) {}
  PlacementKind kind = PlacementKind::contiguous;
  int servers = 1;                             ///< kind servers
  std::vector<std::vector<std::int32_t>> map;  ///< kind map: ranks of each expert's copies
  int ranks_per_node = 8;                      ///< kind node_aware
};

/// @param groups  of experts. @param rows  of each expert, for balanced. @param slots_per_rank  for balanced.
/// @throws InputError as the functions below, and on a map of other experts or ranks.
Placement place_experts(const PlacementSpec& spec, std::span<const double> rows, int groups, int ranks,
                        int slots_per_rank);

/// Experts 0..E/R-1 on rank 0, and so on. @throws InputError unless ranks divides experts.
Placement contiguous_placement(int experts, int ranks);
/// Expert e on rank e mod ranks. Any counts.
Placement round_robin_placement(int experts, int ranks);
/// Groups of consecutive experts on a node each, contiguous within it: a token of few groups reaches few nodes.
/// @throws InputError unless nodes divides groups and ranks.
Placement node_aware_placement(int experts, int ranks, int groups, int nodes);

/// All experts on the first ranks, contiguous. @throws InputError unless servers is 1 to ranks.
Placement server_placement(int experts, int ranks, int servers);

/// Greedy balancing of a recorded load: the expert with the most rows a copy gets the next copy until all slots are
/// used, then copies go, heaviest first, to the rank with the fewest rows that has a slot and not yet this expert.
/// @param slots_per_rank  at least ceil(E / R). @throws InputError when slots are too few.
Placement balanced_placement(std::span<const double> rows_per_expert, int ranks, int slots_per_rank);

/// Expert copies that a rank of `to` holds and did not hold in `from`: weights that must be moved.
std::int64_t moved_copies(const Placement& from, const Placement& to);

}  // namespace moecast
