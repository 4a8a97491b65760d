#ifdef MOECAST_HAS_OPENBLAS
#include <cblas.h>
#include <omp.h>

#include <cstring>

#include "profiler/cpu/gemm_backends.h"

namespace moecast {
namespace {

/// Plain row-major weights: OpenBLAS packs them itself, at every call, except below m n k = 10^6.
class OpenBlasGemm final : public Gemm {
 public:
  OpenBlasGemm(std::int64_t n, std::int64_t k, int threads) : n_(n), k_(k), threads_(threads) {}

  [[nodiscard]] std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(n_) * static_cast<std::size_t>(k_) * sizeof(float);
  }
  [[nodiscard]] std::int64_t padded_rows(std::int64_t m) const override { return row_bucket(RowBucket::multiple4, m); }
  void pack(const float* weights, void* packed) const override { std::memcpy(packed, weights, packed_bytes()); }
  void prepare(std::int64_t /*m*/) override {}

  void run(std::int64_t m, const void* a, const void* packed, float* c) override {
    if (m < 1) return;
    omp_set_num_threads(threads_);  // the OpenMP build follows it, whoever set it last
    if (openblas_get_num_threads() != threads_) openblas_set_num_threads(threads_);
    const auto rows = static_cast<blasint>(padded_rows(m));
    const auto n = static_cast<blasint>(n_);
    const auto k = static_cast<blasint>(k_);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, n, k, 1.0F, static_cast<const float*>(a), k,
                static_cast<const float*>(packed), n, 0.0F, c, n);
  }

  [[nodiscard]] std::string implementation(std::int64_t m) override {
    const bool small = static_cast<double>(padded_rows(m)) * static_cast<double>(n_) * static_cast<double>(k_) <= 1e6;
    return openblas_core() + (small ? ":small" : ":packed");
  }

 private:
  std::int64_t n_;
  std::int64_t k_;
  int threads_;
};

}  // namespace

std::unique_ptr<Gemm> make_openblas_gemm(std::int64_t n, std::int64_t k, int threads) {
  return std::make_unique<OpenBlasGemm>(n, k, threads);
}

std::string openblas_library() { return openblas_get_config(); }

std::string openblas_core() { return openblas_get_corename(); }

}  // namespace moecast
#endif
