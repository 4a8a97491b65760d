#pragma once
#include <concepts>

namespace moecast {

/// When a GEMM backend copies the weights into the layout of its kernels. Like RowBucket, the rule belongs to the
/// profile of a machine (backend, dtype).
enum class WeightPacking {
  ahead,           ///< once, before the first call (oneDNN with AVX-512)
  none,            ///< never: kernels read rows of n columns as they are (oneDNN without AVX-512)
  every_call,      ///< at every call (Eigen; OpenBLAS on most CPUs)
  unless_small,    ///< at every call, except for small products: OpenBLAS with AVX-512, see packs_weights
  unless_one_row,  ///< at every call, except for one row, which is a product of a matrix and a vector (MKL in PyTorch)
};

/// Whether some products are computed from packed weights and some from weights as they are.
constexpr bool packs_some(WeightPacking rule) {
  return rule == WeightPacking::unless_small || rule == WeightPacking::unless_one_row;
}

/// Whether C[m, n] = A[m, k] W[n, k]^T packs W. Small is m n k <= 10^6 and m n <= 1200 and k >= 32, from
/// kernel/x86_64/sgemm_small_kernel_permit_skylakex.c of OpenBLAS 0.3.21 (its "TN" case); timed on such a CPU, 304
/// columns of 4 rows take 4.1 times as long as 300.
template <std::floating_point Real>
constexpr bool packs_weights(WeightPacking rule, Real m, Real n, Real k) {
  if (rule == WeightPacking::unless_one_row) return m > Real(1);
  if (rule != WeightPacking::unless_small) return rule == WeightPacking::every_call;
  return m * n * k > Real(1e6) || m * n > Real(1200) || k < Real(32);
}

}  // namespace moecast
