#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "models/architecture/moe.h"
#include "profiler/reference/matrix.h"

namespace moecast {

/// Where the tokens of one MoE layer go, worked out one token after the other.
struct OracleRoute {
  Matrix gates;                         ///< [tokens, experts]; zero where an expert does not run for a token
  std::vector<std::vector<bool>> runs;  ///< [tokens][experts]
  std::vector<std::int64_t> rows;       ///< [experts] rows that an expert computes, padding apart
  std::int64_t demanded = 0;            ///< choices before capacity
  std::int64_t dropped = 0;             ///< choices that found no room
};

/// Slots of an expert, or nullopt without a limit. Inference: the evaluation factor, else the training factor.
std::optional<std::int64_t> oracle_capacity(const CapacitySpec& capacity, std::int64_t tokens, int top_k,
                                            std::int64_t experts);

/// Sequential reference of every routing policy, independent of the kernels and of models/routing.
/// @param logits  [tokens, experts], planted shift included. @param bias empty or [experts], for the choice only.
OracleRoute oracle_route(const RouterSpec& router, const CapacitySpec& capacity, const Matrix& logits,
                         std::span<const float> bias);

}  // namespace moecast
