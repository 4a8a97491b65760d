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

std::int64_t prefix_tokens(const Workload& workload) {
  if (workload.phase == Phase::mixed) return workload.prefix;
  return workload.phase == Phase::prefill ? workload.context : 0;
}

std::int64_t longest_sequence(const Workload& workload) {
  const bool decodes = workload.phase == Phase::decode || workload.phase == Phase::mixed;
  const bool prompts =
      workload.phase != Phase::decode && (workload.phase != Phase::mixed || workload.prefill_batch > 0);
  return std::max(decodes ? workload.context + 1 : 0, prompts ? prefix_tokens(workload) + workload.prompt : 0);
}

std::string_view to_string(Phase phase) { return kPhases[static_cast<std::size_t>(phase)]; }

std::optional<Phase> find_phase(std::string_view text) {
  for (std::size_t i = 0; i < kPhases.size(); ++i) {
    if (kPhases[i] == text) return static_cast<Phase>(i);
  }
  return std::nullopt;
}

}  // namespace moecast
