#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "models/routing/expert_orders.h"
#include "models/routing/placement.h"

namespace moecast {

/// Where a layer's experts lie before anything is moved. balanced: by popularity, with replicas (EPLB).
enum class PlacementKind { contiguous, round_robin, balanced };
/// Placements of the layers: popularities are those of all layers, each in an order of its own.
/// @param groups  of experts, which the orders keep together. @param slots_per_rank  of balanced.
std::optional<PlacementKind> find_placement_kind(std::string_view name);
std::vector<Placement> make_placements(PlacementKind kind, std::span<const double> popularity, int groups, int ranks,
                                       int layers, int slots_per_rank, std::uint64_t seed);

/// Placements of layers whose orders of popularity are a series: contiguous or round-robin by number, or balanced for
/// what each layer has in step 0. @param popularity  of places.
std::vector<Placement> place_ordered(PlacementKind kind, std::span<const double> popularity, ExpertOrders& orders,
                                     int ranks, int layers, int slots_per_rank);

}  // namespace moecast
