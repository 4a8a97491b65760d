#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/routing/random.h"

namespace moecast {

/// Draws an index by weight in constant time (Walker and Vose).
class AliasTable {
 public:
  /// @throws InputError unless weights are finite, not negative, and one of them is above 0.
  explicit AliasTable(std::span<const double> weights);
  std::int32_t operator()(Random& random) const {
    const std::uint64_t bits = random();
    const auto slot = static_cast<std::size_t>((bits >> 32) * slots_.size() >> 32);
    return static_cast<std::uint32_t>(bits) < slots_[slot].threshold ? static_cast<std::int32_t>(slot)
                                                                     : slots_[slot].other;
  }
  [[nodiscard]] std::size_t size() const { return slots_.size(); }

 private:
  struct Slot {
    std::uint32_t threshold = 0;  ///< of 2^32
    std::int32_t other = 0;
  };
  std::vector<Slot> slots_;
};

}  // namespace moecast
