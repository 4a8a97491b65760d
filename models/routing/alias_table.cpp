#include "models/routing/alias_table.h"

#include <cmath>
#include <numeric>

#include "models/core/error.h"

namespace moecast {

AliasTable::AliasTable(std::span<const double> weights, std::span<const std::int32_t> labels) : slots_(weights.size()) {
  constexpr std::size_t kMost = 65536;
  if (weights.size() > kMost) {
    throw InputError("popularity", "has " + std::to_string(weights.size()) + " experts", "65536 at most");
  }
  const auto label = [&](std::size_t i) {
    return static_cast<std::uint16_t>(labels.empty() ? static_cast<std::int32_t>(i) : labels[i]);
  };
  double sum = 0;
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight < 0) {
      throw InputError("popularity", "holds " + std::to_string(weight), "weights are finite and not negative");
    }
    sum += weight;
  }
  if (!(sum > 0)) throw InputError("popularity", "sums to nothing", "give at least one expert a weight above 0");
  constexpr double kWhole = 4294967295.0;
  std::vector<double> scaled(weights.begin(), weights.end());
  std::vector<std::size_t> small, large;
  for (std::size_t i = 0; i < scaled.size(); ++i) {
    scaled[i] *= static_cast<double>(scaled.size()) / sum;
    (scaled[i] < 1 ? small : large).push_back(i);
  }
  while (!small.empty() && !large.empty()) {
    const std::size_t low = small.back();
    const std::size_t high = large.back();
    small.pop_back();
    slots_[low] = {static_cast<std::uint32_t>(scaled[low] * kWhole), label(low), label(high)};
    scaled[high] -= 1 - scaled[low];
    if (scaled[high] >= 1) continue;
    large.pop_back();
    small.push_back(high);
  }
  for (const std::size_t rest : large) slots_[rest] = {0xffffffffU, label(rest), label(rest)};
  for (const std::size_t rest : small) slots_[rest] = {0xffffffffU, label(rest), label(rest)};
}

}  // namespace moecast
