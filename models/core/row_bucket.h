#pragma once
#include <cstdint>

namespace moecast {

/// How a GEMM backend rounds its rows up before it calls the library. The rule belongs to the profile of a machine
/// (backend, dtype), so that the kernels, the reference runtime and the cost model all mean the same rows.
enum class RowBucket {
  exact,      ///< no rounding
  multiple4,  ///< above 2 rows: multiples of 4 (OpenBLAS: its kernels come in 4 columns of C')
  tile16      ///< multiples of 16 (AMX tiles)
};

/// Rows computed when m rows are asked for; m itself if m < 1.
constexpr std::int64_t row_bucket(RowBucket rule, std::int64_t m) {
  const auto up = [m](std::int64_t multiple) { return (m + multiple - 1) / multiple * multiple; };
  if (m < 1 || rule == RowBucket::exact) return m;
  if (rule == RowBucket::multiple4) return m <= 2 ? m : up(4);
  return up(16);
}

}  // namespace moecast
