#pragma once
#include <string>

#include "tools/cli/output.h"

namespace moecast {

/// What a profile knows and how well: datasheet values, kernels with their left-out errors, defects, what is missing.
/// @throws InputError when the folder holds no profile.
std::string profile_card(const std::string& folder, Format format);

}  // namespace moecast
