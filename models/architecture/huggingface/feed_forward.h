#pragma once
#include <cstddef>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/architecture/huggingface/config.h"
#include "models/architecture/huggingface/family.h"

namespace moecast::huggingface {

/// The feed-forward block of every layer: experts where the placement says so, dense elsewhere.
/// @throws InputError on missing or impossible fields.
std::vector<Block> feed_forward_blocks(Config& config, const Family& family, std::int64_t hidden, std::size_t layers);

/// Experts of one layer. @param layer  for fields that list every layer. @param layers  of the model.
MoeBlock moe_block(Config& config, const Family& family, std::int64_t hidden, std::size_t layer, std::size_t layers);
DenseFfnBlock dense_block(Config& config, const Family& family);
/// Whether the configuration has experts at all.
bool has_experts(Config& config);

RouterSpec router_of(Config& config, const Family& family, std::size_t layer, std::size_t layers);
CapacitySpec capacity_of(Config& config);
Activation activation_of(Config& config);

}  // namespace moecast::huggingface
