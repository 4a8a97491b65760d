#pragma once
#include <string>

#include "models/architecture/architecture.h"

namespace moecast {

/// Appends bytes that are equal for equal layers and for no others: a key of tables.
void append_fingerprint(const Layer& layer, std::string& key);

/// The same for everything of a model but its layers, its name and where it comes from.
void append_frame_fingerprint(const Architecture& architecture, std::string& key);

}  // namespace moecast
