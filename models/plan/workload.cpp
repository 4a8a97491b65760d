#include "models/plan/workload.h"

#include <algorithm>
#include <array>

namespace moecast {
namespace {
constexpr std::array<std::string_view, 5> kPhases{"prefill", "decode", "mixed", "encode", "train"};
}

std::int64_t source_tokens(const Workload& workload) {
  if (workload.source > 0) return workload.source;
  return std::max<std::int64_t>(1, workload.phase == Phase::decode ? workload.context : workload.prompt);
}

std::string_view to_string(Phase phase) { return kPhases[static_cast<std::size_t>(phase)]; }

std::optional<Phase> find_phase(std::string_view text) {
  for (std::size_t i = 0; i < kPhases.size(); ++i) {
    if (kPhases[i] == text) return static_cast<Phase>(i);
  }
  return std::nullopt;
}

}  // namespace moecast
