#pragma once
#include <cmath>
#include <cstdint>

namespace moecast {

/// xoshiro256** (Blackman and Vigna): the same numbers on every machine, seeded through splitmix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) {
    for (std::uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15ULL;
      std::uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
      word = z ^ (z >> 31);
    }
  }
  std::uint64_t operator()() {
    const std::uint64_t result = rotate(state_[1] * 5, 7) * 9;
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = rotate(state_[3], 45);
    return result;
  }
  /// In [0, bound), bound at least 1; bias below 2^-32.
  std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>(((*this)() >> 32) * static_cast<std::uint64_t>(bound) >> 32);
  }
  /// In [0, 1).
  double uniform() {
    constexpr double kStep = 0x1.0p-53;
    return static_cast<double>((*this)() >> 11) * kStep;
  }

 private:
  static constexpr std::uint64_t rotate(std::uint64_t x, int bits) { return (x << bits) | (x >> (64 - bits)); }
  std::uint64_t state_[4] = {};
};

/// ln(weight) + this, the largest first, is what successive draws by weight are.
inline double gumbel(Random& random) { return -std::log(-std::log(random.uniform() + 1e-300)); }

}  // namespace moecast
