#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "models/architecture/moe.h"
#include "models/routing/row_group.h"

namespace moecast {

/// Slots an expert has in inference (evaluation factor, else training factor), at most one a token; nullopt when
/// dropless. Both readings of a factor: of T k / E and of T / E.
std::optional<std::int64_t> capacity_slots(const CapacitySpec& capacity, std::int64_t tokens, int top_k,
                                           std::int64_t experts);

/// Experts of one kind in an expectation: those with rows, and how many there are with those that have none.
struct ExpertRows {
  std::vector<RowGroup> groups;
  double experts = 0;
};

/// Cuts the rows of every expert to `slots`. What is cut off is dropped, or (next best) goes to experts with room, in
/// proportion to the rows that they have, and where those are full to experts that have none.
void limit_rows(std::vector<ExpertRows>& kinds, double slots, bool next_best);

}  // namespace moecast
