#include "sim/event/layer_placements.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "models/routing/random.h"

namespace moecast {

std::optional<PlacementKind> find_placement_kind(std::string_view name) {
  if (name == "contiguous") return PlacementKind::contiguous;
  if (name == "round-robin") return PlacementKind::round_robin;
  if (name == "balanced") return PlacementKind::balanced;
  return std::nullopt;
}

std::vector<Placement> make_placements(PlacementKind kind, std::span<const double> popularity, int groups, int ranks,
                                       int layers, int slots_per_rank, std::uint64_t seed) {
  const int experts = static_cast<int>(popularity.size());
  std::vector<Placement> placements;
  Random random(seed);
  const int each = experts / std::max(1, groups);
  const auto shuffled = [&random](int count) {
    std::vector<int> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    for (int i = count - 1; i > 0; --i) {
      std::swap(order[static_cast<std::size_t>(i)], order[random.below(static_cast<std::uint32_t>(i) + 1)]);
    }
    return order;
  };
  const Placement contiguous = kind == PlacementKind::round_robin || experts % ranks != 0
                                   ? round_robin_placement(experts, ranks)
                                   : contiguous_placement(experts, ranks);
  for (int layer = 0; layer < layers; ++layer) {
    if (kind == PlacementKind::balanced) {
      placements.push_back(balanced_placement(popularity, ranks, slots_per_rank));
      continue;
    }
    std::vector<std::vector<std::int32_t>> ranks_of(static_cast<std::size_t>(experts));
    const std::vector<int> group_order = shuffled(std::max(1, groups));
    for (int group = 0; group < std::max(1, groups); ++group) {
      const std::vector<int> order = shuffled(each);
      for (int i = 0; i < each; ++i) {
        const int place = group_order[static_cast<std::size_t>(group)] * each + order[static_cast<std::size_t>(i)];
        const auto on = contiguous.ranks_of(place);
        ranks_of[static_cast<std::size_t>(group * each + i)].assign(on.begin(), on.end());
      }
    }
    placements.emplace_back(ranks, ranks_of);
  }
  return placements;
}

std::vector<Placement> place_ordered(PlacementKind kind, std::span<const double> popularity, ExpertOrders& orders,
                                     int ranks, int layers, int slots_per_rank) {
  const int experts = static_cast<int>(popularity.size());
  if (kind != PlacementKind::balanced) {
    const bool even = kind == PlacementKind::contiguous && experts % ranks == 0;
    return {static_cast<std::size_t>(layers),
            even ? contiguous_placement(experts, ranks) : round_robin_placement(experts, ranks)};
  }
  orders.go_to(0);
  std::vector<Placement> placements;
  std::vector<double> own(popularity.size());
  for (int layer = 0; layer < layers; ++layer) {
    const std::span<const std::int32_t> order = orders.at(layer);
    for (std::size_t place = 0; place < own.size(); ++place)
      own[static_cast<std::size_t>(order[place])] = popularity[place];
    placements.push_back(balanced_placement(own, ranks, slots_per_rank));
  }
  return placements;
}

}  // namespace moecast
