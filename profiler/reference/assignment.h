#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/architecture/moe.h"

namespace moecast {

/// Which experts run for which tokens in one layer, and with what weight.
struct TokenAssignment {
  std::int64_t tokens = 0;
  std::int64_t experts = 0;
  int slots = 0;                        ///< places a token has: top-k, or all experts in expert choice
  std::vector<std::int32_t> expert_of;  ///< [tokens, slots]; -1 = dropped or empty
  std::vector<float> weights;           ///< [tokens, slots]; 0 where dropped or empty
  std::vector<std::int64_t> rows;       ///< [experts] rows that each computes for tokens
  std::int64_t demanded = 0;            ///< choices before capacity
  std::int64_t dropped = 0;
};

/// Cuts the choices in `assignment` to `slots` rows an expert, tokens in order and a token's choices best first.
/// Overflow::next_best moves a choice to the token's best other expert that has room, with that expert's own score.
/// @param keys  [tokens, experts] logits that tokens choose by.
void apply_capacity(const RouterSpec& router, const CapacitySpec& capacity, std::int64_t slots,
                    std::span<const float> logits, std::span<const float> bias, TokenAssignment& assignment);

/// Every expert takes the `slots` tokens that score it best; a token may get none or many.
void choose_tokens(const RouterSpec& router, std::span<const float> logits, std::int64_t slots,
                   TokenAssignment& assignment);

}  // namespace moecast
