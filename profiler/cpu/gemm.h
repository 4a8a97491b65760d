#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/core/dtype.h"
#include "models/core/row_bucket.h"
#include "models/core/weight_packing.h"

namespace moecast {

/// C[m, n] = A[m, k] * W[k, n] on one backend, with weights in the layout that the backend likes best.
///
/// A is fp32 or bf16 (`dtype`), row major; C is always fp32, row major. One object serves every m; first use of an m
/// may create a primitive (`prepare` does it ahead). Not thread-safe: the threads are inside.
///
/// `run` computes padded_rows(m) rows: A and C must have that many (what the extra rows of A hold does not matter, the
/// extra rows of C are garbage). Measured on AMX with oneDNN 2.6: 49 rows take 148 us where 48 take 95 and 56 take 112,
/// because a row tail reconfigures the tiles for every column block; and each unseen m costs 0.27 ms of primitive
/// creation. Rows are therefore bucketed, as grouped-GEMM kernels do on GPUs.
class Gemm {
 public:
  virtual ~Gemm() = default;
  [[nodiscard]] virtual std::size_t packed_bytes() const = 0;
  /// Fills packed_bytes() at `packed` from fp32 weights [k, n], row major.
  virtual void pack(const float* weights, void* packed) const = 0;
  /// Rows really computed for m rows; see row_bucket().
  [[nodiscard]] virtual std::int64_t padded_rows(std::int64_t m) const = 0;
  virtual void prepare(std::int64_t m) = 0;
  virtual void run(std::int64_t m, const void* a, const void* packed, float* c) = 0;
  /// Kernel family that the library chose for this m, e.g. "brgemm:avx512_core_amx_bf16".
  [[nodiscard]] virtual std::string implementation(std::int64_t m) = 0;
};

/// Backends compiled in, e.g. {"onednn", "openblas", "eigen"}.
std::vector<std::string> gemm_backends();
bool gemm_supports(const std::string& backend, DType dtype);
/// The rule behind padded_rows() of every Gemm of this backend and dtype on this CPU.
RowBucket gemm_row_bucket(const std::string& backend, DType dtype);
/// When this backend packs weights on this CPU.
WeightPacking gemm_weight_packing(const std::string& backend);
/// Name, version and build of the library behind a backend, e.g. "oneDNN 2.6.3 (OpenMP)".
std::string gemm_library(const std::string& backend);
/// OPENBLAS_CORETYPE that this process should have been started with: OpenBLAS 0.3.21 falls to its Prescott kernels
/// (5 times slower) on CPUs that it does not know. nullopt: nothing to do, or the variable is set already. It has
/// effect only before the library loads, so a program starts itself again with it.
std::optional<std::string> openblas_core_override();
/// @throws DeviceError for an unknown backend or a dtype that it does not support.
std::unique_ptr<Gemm> make_gemm(const std::string& backend, DType dtype, std::int64_t n, std::int64_t k, int threads);

}  // namespace moecast
