#pragma once
#include <cstdint>
#include <string>

#include "models/architecture/architecture.h"

namespace moecast {

/// Why a sequence of so many tokens is not answered: it exceeds the context that the model is made for. Empty: it does
/// not, or nothing is known of the model's.
std::string beyond_context(const Architecture& architecture, std::int64_t longest);

}  // namespace moecast
