#pragma once
#include <string>
#include <vector>

#include "models/architecture/architecture.h"

namespace moecast {

/// Names of the model files <name>.json of a folder, sorted; empty if there is no such folder.
std::vector<std::string> zoo_names(const std::string& folder);

/// @throws InputError on an unknown name (nearest suggested) or a bad file.
Architecture load_zoo(const std::string& folder, const std::string& name);

}  // namespace moecast
