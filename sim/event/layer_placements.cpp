#include "sim/event/layer_placements.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "models/routing/random.h"

namespace moecast {
namespace {

Placement place_layer(PlacementSpec spec, std::span<const double> rows, int groups, int ranks, int slots_per_rank) {
  const bool even = std::ssize(rows) % ranks == 0;
  if (spec.kind == PlacementKind::contiguous && !even) spec.kind = PlacementKind::round_robin;
  return place_experts(spec, rows, groups, ranks, slots_per_rank);
}

}  // namespace

std::vector<Placement> make_placements(const PlacementSpec& spec, std::span<const double> popularity, int groups,
                                       int ranks, int layers, int slots_per_rank, std::uint64_t seed) {
  const int experts = static_cast<int>(popularity.size());
  const int parts = std::max(1, groups);
  const Placement by_number = place_layer(spec, popularity, parts, ranks, slots_per_rank);
  // The balancer asks how popular experts are, not which they are.
  if (spec.kind == PlacementKind::balanced || spec.kind == PlacementKind::map) {
    return {static_cast<std::size_t>(layers), by_number};
  }
  std::vector<Placement> placements;
  Random random(seed);
  const int each = experts / parts;
  const auto shuffled = [&random](int count) {
    std::vector<int> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    for (int i = count - 1; i > 0; --i) {
      std::swap(order[static_cast<std::size_t>(i)], order[random.below(static_cast<std::uint32_t>(i) + 1)]);
    }
    return order;
  };
  for (int layer = 0; layer < layers; ++layer) {
    std::vector<std::vector<std::int32_t>> ranks_of(static_cast<std::size_t>(experts));
    const std::vector<int> group_order = shuffled(parts);
    for (int group = 0; group < parts; ++group) {
      const std::vector<int> order = shuffled(each);
      for (int i = 0; i < each; ++i) {
        const int place = group_order[static_cast<std::size_t>(group)] * each + order[static_cast<std::size_t>(i)];
        const auto on = by_number.ranks_of(place);
        ranks_of[static_cast<std::size_t>(group * each + i)].assign(on.begin(), on.end());
      }
    }
    placements.emplace_back(ranks, ranks_of);
  }
  return placements;
}

std::vector<Placement> place_recorded(const PlacementSpec& spec, const std::vector<std::vector<double>>& rows,
                                      int groups, int ranks, int slots_per_rank) {
  std::vector<Placement> placements;
  for (const std::vector<double>& own : rows)
    placements.push_back(place_layer(spec, own, std::max(1, groups), ranks, slots_per_rank));
  return placements;
}

std::vector<Placement> place_ordered(const PlacementSpec& spec, std::span<const double> popularity,
                                     ExpertOrders& orders, int groups, int ranks, int layers, int slots_per_rank) {
  if (spec.kind != PlacementKind::balanced) {
    return {static_cast<std::size_t>(layers), place_layer(spec, popularity, groups, ranks, slots_per_rank)};
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
