#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/routing/expert_orders.h"
#include "models/routing/placement.h"

namespace moecast {

/// Placements of layers that share a popularity, each in an order of its own: which expert is which is drawn for each
/// layer. A map is of experts by their numbers: it is taken as it stands. Contiguous experts that do not divide over
/// the ranks lie in turn.
/// @param groups  of experts, which the orders keep together. @param slots_per_rank  of balanced.
std::vector<Placement> make_placements(const PlacementSpec& spec, std::span<const double> popularity, int groups,
                                       int ranks, int layers, int slots_per_rank, std::uint64_t seed);

/// Placements of layers whose experts are known by their numbers, as a recorded load says them: balanced for each
/// layer's own rows. @param rows  of each layer's experts.
std::vector<Placement> place_recorded(const PlacementSpec& spec, const std::vector<std::vector<double>>& rows,
                                      int groups, int ranks, int slots_per_rank);

/// Placements of layers whose orders of popularity are a series: by number, or balanced for what each layer has in step
/// 0. @param popularity  of places.
std::vector<Placement> place_ordered(const PlacementSpec& spec, std::span<const double> popularity,
                                     ExpertOrders& orders, int groups, int ranks, int layers, int slots_per_rank);

}  // namespace moecast
