#include "models/routing/alias_table.h"

#include <cmath>
#include <numeric>

#include "models/core/error.h"

namespace moecast {

AliasTable::AliasTable(std::span<const double> weights) : slots_(weights.size()) {
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
    slots_[low] = {static_cast<std::uint32_t>(scaled[low] * kWhole), static_cast<std::int32_t>(high)};
    scaled[high] -= 1 - scaled[low];
    if (scaled[high] >= 1) continue;
    large.pop_back();
    small.push_back(high);
  }
  for (const std::size_t rest : large) slots_[rest] = {0xffffffffU, static_cast<std::int32_t>(rest)};
  for (const std::size_t rest : small) slots_[rest] = {0xffffffffU, static_cast<std::int32_t>(rest)};
}

}  // namespace moecast
