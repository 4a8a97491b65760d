#include <Eigen/Core>
#include <cstring>

#include "profiler/cpu/gemm_backends.h"

namespace moecast {
namespace {

class EigenGemm final : public Gemm {
 public:
  EigenGemm(std::int64_t n, std::int64_t k, int threads) : n_(n), k_(k), threads_(threads) {}

  [[nodiscard]] std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(n_) * static_cast<std::size_t>(k_) * sizeof(float);
  }
  [[nodiscard]] std::int64_t padded_rows(std::int64_t m) const override { return m; }
  void pack(const float* weights, void* packed) const override { std::memcpy(packed, weights, packed_bytes()); }
  void prepare(std::int64_t /*m*/) override {}

  void run(std::int64_t m, const void* a, const void* packed, float* c) override {
    if (m < 1) return;
    using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::setNbThreads(threads_);
    const Eigen::Map<const RowMajor> left(static_cast<const float*>(a), m, k_);
    const Eigen::Map<const RowMajor> right(static_cast<const float*>(packed), k_, n_);
    Eigen::Map<RowMajor> result(c, m, n_);
    result.noalias() = left * right;
  }

  [[nodiscard]] std::string implementation(std::int64_t /*m*/) override { return Eigen::SimdInstructionSetsInUse(); }

 private:
  std::int64_t n_;
  std::int64_t k_;
  int threads_;
};

}  // namespace

std::unique_ptr<Gemm> make_eigen_gemm(std::int64_t n, std::int64_t k, int threads) {
  return std::make_unique<EigenGemm>(n, k, threads);
}

std::string eigen_library() {
  return "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
}

}  // namespace moecast
