#include "models/plan/deployment.h"

#include <array>

namespace moecast {
namespace {
constexpr std::array<std::string_view, 4> kStrategies{"per_expert_loop", "sorted_grouped", "capacity_padded",
                                                      "dense_mask"};
}

std::string_view to_string(KernelStrategy strategy) { return kStrategies[static_cast<std::size_t>(strategy)]; }

std::optional<KernelStrategy> find_strategy(std::string_view text) {
  for (std::size_t i = 0; i < kStrategies.size(); ++i) {
    if (kStrategies[i] == text) return static_cast<KernelStrategy>(i);
  }
  return std::nullopt;
}

}  // namespace moecast
