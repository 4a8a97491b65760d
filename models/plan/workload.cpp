#include "models/plan/workload.h"

#include <array>

namespace moecast {
namespace {
constexpr std::array<std::string_view, 4> kPhases{"prefill", "decode", "mixed", "encode"};
}

std::string_view to_string(Phase phase) { return kPhases[static_cast<std::size_t>(phase)]; }

std::optional<Phase> find_phase(std::string_view text) {
  for (std::size_t i = 0; i < kPhases.size(); ++i) {
    if (kPhases[i] == text) return static_cast<Phase>(i);
  }
  return std::nullopt;
}

}  // namespace moecast
