#ifdef MOECAST_HAS_OPENBLAS
#include <cblas.h>
#include <omp.h>

#include <Eigen/Core>

#include "profiler/cpu/gemm_backends.h"

namespace moecast {
namespace {

/// Weights stored [n, k] row major, as torch.nn.Linear and most engines keep them. OpenBLAS packs them itself, at every
/// call, except for the smallest products; it reads them along k, so weights from main memory come at one steady rate
/// (stored [k, n] they came 1.2 to 3.5 times slower at 16 rows or fewer, at a rate that depended on n).
class OpenBlasGemm final : public Gemm {
 public:
  OpenBlasGemm(std::int64_t n, std::int64_t k, int threads) : n_(n), k_(k), threads_(threads) {}

  [[nodiscard]] std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(n_) * static_cast<std::size_t>(k_) * sizeof(float);
  }
  [[nodiscard]] std::int64_t padded_rows(std::int64_t m) const override { return row_bucket(RowBucket::multiple4, m); }
  void pack(const float* weights, void* packed) const override {
    using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<Matrix>(static_cast<float*>(packed), n_, k_) = Eigen::Map<const Matrix>(weights, k_, n_).transpose();
  }
  void prepare(std::int64_t /*m*/) override {}

  void run(std::int64_t m, const void* a, const void* packed, float* c) override {
    if (m < 1) return;
    omp_set_num_threads(threads_);  // the OpenMP build follows it, whoever set it last
    if (openblas_get_num_threads() != threads_) openblas_set_num_threads(threads_);
    const auto rows = static_cast<blasint>(padded_rows(m));
    const auto n = static_cast<blasint>(n_);
    const auto k = static_cast<blasint>(k_);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, n, k, 1.0F, static_cast<const float*>(a), k,
                static_cast<const float*>(packed), k, 0.0F, c, n);
  }

  [[nodiscard]] std::string implementation(std::int64_t m) override {
    const bool packs = packs_weights(openblas_weight_packing(), static_cast<double>(padded_rows(m)),
                                     static_cast<double>(n_), static_cast<double>(k_));
    return openblas_core() + (packs ? ":packed" : ":small");
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

WeightPacking openblas_weight_packing() {
  const std::string core = openblas_core();
  const bool avx512 = core == "SkylakeX" || core == "Cooperlake" || core == "SapphireRapids";
  return avx512 ? WeightPacking::unless_small : WeightPacking::every_call;
}

}  // namespace moecast
#endif
