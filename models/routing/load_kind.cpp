#include <array>

#include "models/routing/load.h"

namespace moecast {
namespace {
constexpr std::array<std::string_view, 7> kLoadKinds{"uniform",    "zipf",      "power-law", "dirichlet",
                                                     "log-normal", "histogram", "trace"};
}

std::string_view to_string(LoadKind kind) { return kLoadKinds[static_cast<std::size_t>(kind)]; }

std::optional<LoadKind> find_load_kind(std::string_view text) {
  for (std::size_t i = 0; i < kLoadKinds.size(); ++i) {
    if (kLoadKinds[i] == text) return static_cast<LoadKind>(i);
  }
  return std::nullopt;
}

}  // namespace moecast
