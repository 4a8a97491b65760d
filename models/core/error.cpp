#include "models/core/error.h"

#include <utility>

namespace moecast {

Error::Error(std::string where, std::string what, std::string hint)
    : std::runtime_error(where.empty() ? what : where + ": " + what),
      where_(std::move(where)),
      problem_(std::move(what)),
      hint_(std::move(hint)) {}

}  // namespace moecast
