#include "models/plan/deployment.h"

#include <array>

namespace moecast {
namespace {
constexpr std::array<std::string_view, 4> kStrategies{"per_expert_loop", "sorted_grouped", "capacity_padded",
                                                      "dense_mask"};
constexpr std::array<std::string_view, 2> kOverlaps{"none", "layer"};
}  // namespace

std::string_view to_string(KernelStrategy strategy) { return kStrategies[static_cast<std::size_t>(strategy)]; }

std::optional<KernelStrategy> find_strategy(std::string_view text) {
  for (std::size_t i = 0; i < kStrategies.size(); ++i) {
    if (kStrategies[i] == text) return static_cast<KernelStrategy>(i);
  }
  return std::nullopt;
}

std::string_view to_string(FetchOverlap overlap) { return kOverlaps[static_cast<std::size_t>(overlap)]; }

std::optional<FetchOverlap> find_fetch_overlap(std::string_view text) {
  for (std::size_t i = 0; i < kOverlaps.size(); ++i) {
    if (kOverlaps[i] == text) return static_cast<FetchOverlap>(i);
  }
  return std::nullopt;
}

}  // namespace moecast
