#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "models/architecture/huggingface/config.h"
#include "models/architecture/huggingface/family.h"

namespace moecast::huggingface {

/// What mixes the tokens of a layer.
enum class Mixer { full, sliding, chunked, linear, state_space };

/// One a layer, from whichever of the fields for it there is. @throws InputError on lists that are too short.
std::vector<Mixer> mixer_of_layers(Config& config, const Family& family, std::size_t layers);

/// True where a layer has experts; all layers if no field says otherwise. @throws InputError as above.
std::vector<bool> moe_of_layers(Config& config, std::size_t layers);

/// Blocks of a hybrid model in order, each its own layer: 'M' state space, 'E' experts, '*' attention, '-' dense.
/// Empty if the configuration has no such pattern. @throws InputError on another letter.
std::string hybrid_pattern(Config& config, Names string_names, Names list_names);

}  // namespace moecast::huggingface
