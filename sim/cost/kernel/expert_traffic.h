#pragma once
#include <algorithm>
#include <cmath>

namespace moecast {

inline constexpr double kDevicesPerNode = 8;
/// DeepEP's usual number of multiprocessors in normal mode.
inline constexpr double kDispatchMultiprocessors = 24;

/// Bytes of a token's row: fp8 with a float scale a 128 on the way to the experts, bf16 on the way back.
constexpr double dispatch_row_bytes(double hidden) { return hidden * (1 + 4.0 / 128); }
constexpr double combine_row_bytes(double hidden) { return 2 * hidden; }

/// ln of the number of ways to choose; minus infinity where there is none.
inline double log_choose(double from, double chosen) {
  if (from < chosen) return -INFINITY;
  return std::lgamma(from + 1) - std::lgamma(chosen + 1) - std::lgamma(from - chosen + 1);
}

/// Expected distinct groups (ranks or nodes) that a token reaches: uniform top-k of experts laid out in equal groups.
inline double distinct_groups(double groups, double experts, double top_k) {
  if (groups <= 1) return groups;
  return groups * (1 - std::exp(log_choose(experts - experts / groups, top_k) - log_choose(experts, top_k)));
}

}  // namespace moecast
