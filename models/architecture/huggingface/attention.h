#pragma once
#include <cstddef>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/architecture/huggingface/config.h"
#include "models/architecture/huggingface/family.h"

namespace moecast::huggingface {

/// The token mixer of every layer: attention of its kind, or a state-space mixer.
/// @throws InputError on missing or impossible fields.
std::vector<Block> mixer_blocks(Config& config, const Family& family, std::int64_t hidden, std::size_t layers);

/// Softmax attention of full context, and a state-space mixer, for hybrid patterns.
AttentionBlock full_attention(Config& config, const Family& family, std::int64_t hidden);
StateSpaceBlock state_space(Config& config, std::int64_t hidden);

}  // namespace moecast::huggingface
