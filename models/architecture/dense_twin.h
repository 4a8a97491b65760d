#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "models/architecture/architecture.h"

namespace moecast {

/// What a dense model has in common with the MoE model that it stands beside.
enum class Matched {
  flops,      ///< arithmetic of a token: the active parameters of every block
  parameters  ///< weights: the total parameters of every block
};
std::string_view to_string(Matched matched);
std::optional<Matched> find_matched(std::string_view text);

/// The same model with a dense feed-forward network in place of every MoE block.
///
/// Its width is what makes the block's active (or total) parameters equal: those of router, gates, shared experts and
/// latent projections count, for the MoE block has to compute and keep them too. It is rounded to the nearest multiple
/// of `multiple`, at least one; gates, biases and activation are those of the block's first expert. Experts in a format
/// of their own (Architecture::expert_dtype) become weights in the model's format.
/// @param multiple  ranks that have to divide the width, at least 1.
/// @throws InputError for a model without a MoE block.
Architecture dense_twin(const Architecture& architecture, Matched matched, std::int64_t multiple = 1);

}  // namespace moecast
