#pragma once
#include <bit>
#include <cstdint>

namespace moecast {

/// Calls that a batch works on at a time: one vector of the widest instruction set, floats.
inline constexpr int kLanes = 16;

/// By value: std::max chooses between addresses, and a loop over it does not vectorise.
inline float larger_of(float a, float b) { return a > b ? a : b; }

inline float smaller_of(float a, float b) { return a < b ? a : b; }

/// log2 of a positive normal float, absolute error below 2e-7 plus one rounding. No branch: loops over it vectorise.
inline float lane_log2(float x) {
  constexpr std::int32_t kRootHalf = 0x3f3504f3;
  const auto bits = std::bit_cast<std::int32_t>(x);
  // Mantissa in [sqrt(1/2), sqrt(2)), so that the series is short on both sides of 1.
  const std::int32_t exponent = (bits - kRootHalf) >> 23;
  const float mantissa = std::bit_cast<float>(bits - (exponent << 23));
  // ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716: the first left-out term is 2 s^11 / 11 < 7e-10.
  const float s = (mantissa - 1) / (mantissa + 1);
  const float q = s * s;
  const float series = 1 + q * (1.0F / 3 + q * (1.0F / 5 + q * (1.0F / 7 + q * (1.0F / 9))));
  constexpr float kTwoOverLn2 = 2.885390082F;
  return static_cast<float>(exponent) + kTwoOverLn2 * s * series;
}

/// 2^x, relative error below 3e-7 for -126 <= x <= 127; saturates outside, down to |x| of a few thousands.
inline float lane_exp2(float x) {
  constexpr float kRounder = 12582912;  // 1.5 * 2^23: adding it rounds to a whole number
  const float shifted = x + kRounder;
  const float whole = shifted - kRounder;
  const float f = x - whole;  // -0.5 to 0.5
  // Taylor series of 2^f; the first left-out term is (ln 2 / 2)^7 / 5040 = 1.2e-7.
  const float series =
      1 +
      f * (0.6931471806F +
           f * (0.2402265070F + f * (0.0555041087F + f * (0.0096181291F + f * (0.0013333558F + f * 0.0001540353F)))));
  // Whole numbers are clamped, not x: chained choices between floats become branches.
  std::int32_t exponent = static_cast<std::int32_t>(whole) + 127;
  exponent = exponent < 1 ? 1 : exponent;
  exponent = exponent > 254 ? 254 : exponent;
  return series * std::bit_cast<float>(exponent << 23);
}

}  // namespace moecast
