#include "models/routing/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "models/core/error.h"

namespace moecast {
namespace {

void need_placement(bool holds, const std::string& what, const std::string& hint = {}) {
  if (!holds) throw InputError("placement", what, hint);
}

struct NamedPlacement {
  std::string_view name;
  PlacementKind kind;
};
constexpr std::array<NamedPlacement, 6> kPlacements{{{"contiguous", PlacementKind::contiguous},
                                                     {"round-robin", PlacementKind::round_robin},
                                                     {"node-aware", PlacementKind::node_aware},
                                                     {"balanced", PlacementKind::balanced},
                                                     {"servers", PlacementKind::servers},
                                                     {"map", PlacementKind::map}}};

std::vector<std::vector<std::int32_t>> one_each(int experts, int ranks) {
  need_placement(experts >= 1 && ranks >= 1, fmt::format("{} experts on {} ranks", experts, ranks),
                 "both are at least 1");
  return std::vector<std::vector<std::int32_t>>(static_cast<std::size_t>(experts));
}

}  // namespace

std::optional<PlacementKind> find_placement_kind(std::string_view name) {
  for (const NamedPlacement& placement : kPlacements) {
    if (placement.name == name) return placement.kind;
  }
  return std::nullopt;
}

Placement place_experts(const PlacementSpec& spec, std::span<const double> rows, int groups, int ranks,
                        int slots_per_rank) {
  const auto experts = static_cast<int>(rows.size());
  switch (spec.kind) {
    case PlacementKind::contiguous: break;
    case PlacementKind::round_robin: return round_robin_placement(experts, ranks);
    case PlacementKind::node_aware:
      return node_aware_placement(experts, ranks, groups, (ranks + spec.ranks_per_node - 1) / spec.ranks_per_node);
    case PlacementKind::balanced: return balanced_placement(rows, ranks, slots_per_rank);
    case PlacementKind::servers: return server_placement(experts, ranks, spec.servers);
    case PlacementKind::map:
      need_placement(spec.map.size() == rows.size(),
                     fmt::format("the map has {} experts, the layer {}", spec.map.size(), rows.size()),
                     "write the ranks of every expert, e.g. map:0,0,1+2");
      return {ranks, spec.map};
  }
  return contiguous_placement(experts, ranks);
}

Placement::Placement(int ranks, const std::vector<std::vector<std::int32_t>>& ranks_of_expert) : ranks_(ranks) {
  need_placement(ranks >= 1, "has no ranks");
  need_placement(!ranks_of_expert.empty(), "has no experts");
  first_.push_back(0);
  for (std::size_t expert = 0; expert < ranks_of_expert.size(); ++expert) {
    std::vector<std::int32_t> sorted = ranks_of_expert[expert];
    std::sort(sorted.begin(), sorted.end());
    need_placement(!sorted.empty(), fmt::format("expert {} has no rank", expert));
    need_placement(sorted.front() >= 0 && sorted.back() < ranks,
                   fmt::format("expert {} is on rank {}; ranks are 0 to {}", expert,
                               sorted.front() < 0 ? sorted.front() : sorted.back(), ranks - 1));
    need_placement(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(),
                   fmt::format("expert {} is on one rank twice", expert));
    copies_.insert(copies_.end(), sorted.begin(), sorted.end());
    first_.push_back(static_cast<std::uint32_t>(copies_.size()));
  }
}

std::vector<std::int32_t> Placement::experts_of(int rank) const {
  std::vector<std::int32_t> held;
  for (int expert = 0; expert < experts(); ++expert) {
    const auto ranks = ranks_of(expert);
    if (std::binary_search(ranks.begin(), ranks.end(), rank)) held.push_back(expert);
  }
  return held;
}

std::vector<double> Placement::rows_per_rank(std::span<const double> rows_per_expert) const {
  std::vector<double> rows(static_cast<std::size_t>(ranks_), 0);
  for (int expert = 0; expert < experts(); ++expert) {
    const auto ranks = ranks_of(expert);
    const double share = rows_per_expert[static_cast<std::size_t>(expert)] / static_cast<double>(ranks.size());
    for (const std::int32_t rank : ranks) rows[static_cast<std::size_t>(rank)] += share;
  }
  return rows;
}

Placement contiguous_placement(int experts, int ranks) {
  auto map = one_each(experts, ranks);
  need_placement(experts % ranks == 0, fmt::format("{} experts do not divide over {} ranks", experts, ranks),
                 "round-robin and maps take any counts");
  for (int e = 0; e < experts; ++e) map[static_cast<std::size_t>(e)].push_back(e / (experts / ranks));
  return {ranks, map};
}

Placement round_robin_placement(int experts, int ranks) {
  auto map = one_each(experts, ranks);
  for (int e = 0; e < experts; ++e) map[static_cast<std::size_t>(e)].push_back(e % ranks);
  return {ranks, map};
}

Placement node_aware_placement(int experts, int ranks, int groups, int nodes) {
  auto map = one_each(experts, ranks);
  need_placement(
      nodes >= 1 && groups >= 1 && groups % nodes == 0 && ranks % nodes == 0 && experts % groups == 0,
      fmt::format("{} experts in {} groups do not divide over {} nodes of {} ranks", experts, groups, nodes, ranks));
  const int on_node = experts / nodes;
  const int node_ranks = ranks / nodes;
  for (int e = 0; e < experts; ++e) {
    const int node = e / on_node;
    map[static_cast<std::size_t>(e)].push_back(node * node_ranks + e % on_node * node_ranks / on_node);
  }
  return {ranks, map};
}

Placement server_placement(int experts, int ranks, int servers) {
  auto map = one_each(experts, ranks);
  need_placement(servers >= 1 && servers <= ranks, fmt::format("{} servers of {} ranks", servers, ranks));
  for (int e = 0; e < experts; ++e) {
    map[static_cast<std::size_t>(e)].push_back(
        static_cast<std::int32_t>(static_cast<std::int64_t>(e) * servers / experts));
  }
  return {ranks, map};
}

Placement balanced_placement(std::span<const double> rows_per_expert, int ranks, int slots_per_rank) {
  const auto experts = static_cast<int>(rows_per_expert.size());
  auto map = one_each(experts, ranks);
  const std::int64_t slots = static_cast<std::int64_t>(ranks) * slots_per_rank;
  need_placement(slots >= experts, fmt::format("{} slots on {} ranks hold no {} experts", slots, ranks, experts));
  std::vector<int> copies(rows_per_expert.size(), 1);
  const auto each = [&](std::size_t e) { return rows_per_expert[e] / copies[e]; };
  for (std::int64_t spare = slots - experts; spare > 0; --spare) {
    std::size_t hottest = 0;
    bool found = false;
    for (std::size_t e = 0; e < rows_per_expert.size(); ++e) {
      if (copies[e] < ranks && (!found || each(e) > each(hottest))) {
        hottest = e;
        found = true;
      }
    }
    if (!found) break;
    ++copies[hottest];
  }
  std::vector<std::size_t> order(rows_per_expert.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Experts with many copies first where weights tie: they have the fewest ranks to choose from.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return each(a) != each(b) ? each(a) > each(b) : copies[a] > copies[b];
  });
  std::vector<double> load(static_cast<std::size_t>(ranks), 0);
  std::vector<int> used(static_cast<std::size_t>(ranks), 0);
  for (const std::size_t expert : order) {
    for (int copy = 0; copy < copies[expert]; ++copy) {
      int best = -1;
      for (int rank = 0; rank < ranks; ++rank) {
        const auto at = static_cast<std::size_t>(rank);
        auto& held = map[expert];
        if (used[at] >= slots_per_rank || std::find(held.begin(), held.end(), rank) != held.end()) continue;
        if (best < 0 || load[at] < load[static_cast<std::size_t>(best)]) best = rank;
      }
      if (best < 0) continue;  // all ranks with room hold this expert already
      map[expert].push_back(best);
      load[static_cast<std::size_t>(best)] += each(expert);
      ++used[static_cast<std::size_t>(best)];
    }
  }
  return {ranks, map};
}

std::int64_t moved_copies(const Placement& from, const Placement& to) {
  need_placement(from.experts() == to.experts(),
                 fmt::format("{} experts cannot become {}", from.experts(), to.experts()));
  std::int64_t moved = 0;
  for (int expert = 0; expert < to.experts(); ++expert) {
    const auto before = from.ranks_of(expert);
    for (const std::int32_t rank : to.ranks_of(expert)) {
      moved += std::binary_search(before.begin(), before.end(), rank) ? 0 : 1;
    }
  }
  return moved;
}

}  // namespace moecast
