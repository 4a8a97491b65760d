#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/routing/random.h"

namespace moecast {

/// Draws an index by weight in constant time (Walker and Vose).
class AliasTable {
 public:
  /// @param labels  what is drawn in place of indices, each below 65536; empty: indices.
  /// @throws InputError unless weights are finite, not negative, at most 65536, and one of them is above 0.
  explicit AliasTable(std::span<const double> weights, std::span<const std::int32_t> labels = {});
  std::int32_t operator()(Random& random) const { return at(static_cast<std::uint32_t>(random() >> 32)); }
  /// @param bits  evenly spread over 32 bits: their product with the size is the slot and, below it, the place in it.
  [[nodiscard]] std::int32_t at(std::uint32_t bits) const {
    const std::uint64_t scaled = bits * static_cast<std::uint64_t>(slots_.size());
    const auto slot = static_cast<std::size_t>(scaled >> 32);
    // No branch: which half of a slot is hit cannot be foreseen.
    const Slot& hit = slots_[slot];
    const std::int32_t own = -static_cast<std::int32_t>(static_cast<std::uint32_t>(scaled) < hit.threshold);
    return hit.other ^ ((hit.own ^ hit.other) & own);
  }
  [[nodiscard]] std::size_t size() const { return slots_.size(); }

 private:
  struct Slot {
    std::uint32_t threshold = 0;  ///< of 2^32
    std::uint16_t own = 0;
    std::uint16_t other = 0;
  };
  std::vector<Slot> slots_;
};

}  // namespace moecast
