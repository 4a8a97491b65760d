#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace moecast {

/// How a GEMM computes on the device.
enum class GpuMath { bf16, fp32, tf32 };

/// Y[m, n] = X[m, k] * W[n, k]^T, all row-major, device pointers; outputs have the type of the inputs.
struct GpuGemm {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  const void* x = nullptr;
  const void* w = nullptr;
  void* y = nullptr;
};

/// Pointers of a grouped call, in device memory: one entry a GEMM, in the order of the list.
struct GroupedPointers {
  const void* const* w = nullptr;
  const void* const* x = nullptr;
  void* const* y = nullptr;
};

/// cuBLAS found at run time, so that the program starts (and builds) where there is none.
///
/// Declared by hand after cublas_api.h of CUDA 13.0: the functions used here are the same since CUDA 12.5.
class Cublas {
 public:
  /// Looks for libcublas.so.13, then .12: in `folder` if not empty, by the loader's rules, then beside CUDA toolkits.
  /// @throws DeviceError when none loads; lists what was tried.
  explicit Cublas(const std::string& folder = {});
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  /// Makes a handle on `stream` (a cudaStream_t) with its own workspace, as graph capture demands.
  /// @throws DeviceError if cuBLAS refuses.
  void attach(void* stream, void* workspace, std::size_t workspace_bytes);
  /// "cuBLAS 13.1.0 (/path/libcublas.so.13)".
  [[nodiscard]] std::string version() const;
  [[nodiscard]] bool has_grouped() const;

  void gemm(const GpuGemm& call, GpuMath math);
  /// Every GEMM of the list in one call. @throws DeviceError if this cuBLAS has no grouped GEMM or refuses.
  void grouped(const std::vector<GpuGemm>& calls, const GroupedPointers& pointers, GpuMath math);

 private:
  struct Functions;
  std::unique_ptr<Functions> functions_;
  void* library_ = nullptr;
  void* handle_ = nullptr;
  std::string path_;
};

}  // namespace moecast
