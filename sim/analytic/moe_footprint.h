#pragma once
#include <cstddef>

#include "models/core/dtype.h"
#include "sim/analytic/moe_batch.h"

namespace moecast {

/// What a lone layer is and holds on one rank: what count_parameters and memory_per_rank say of it, at a part of the
/// cost.
struct MoeFootprint {
  double parameters = 0;
  double memory_bytes = 0;  ///< weights, activations and workspace
};

/// @param layers  columns that MoeBatch::prepare accepts. @param dtype  of weights and activations.
MoeFootprint moe_footprint(const MoeColumns& layers, std::size_t row, DType dtype) noexcept;

}  // namespace moecast
