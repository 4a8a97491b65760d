#pragma once
#include <string>

#include "models/architecture/architecture.h"

namespace moecast {

/// Refuses sizes that make no network: zero widths, top-k above the experts, groups that do not divide them, heads that
/// are no multiple of the key-value heads, ...
/// @param where  of the block; the field that is wrong is appended as a JSON pointer.
/// @throws InputError
void check_block(const Block& block, std::int64_t hidden, const std::string& where);
/// Every block of every layer, and the model's own sizes.
void check_architecture(const Architecture& architecture, const std::string& where);

}  // namespace moecast
