#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/architecture/attention.h"
#include "models/architecture/moe.h"
#include "models/core/dtype.h"
#include "profiler/cpu/gemm.h"
#include "profiler/cpu/settle.h"
#include "profiler/reference/counters.h"

namespace moecast {

/// Weights [k, n] of one matrix product and where they lie in a copy of the model.
struct Linear {
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::size_t offset = 0;
};

/// The kernels of one backend, dtype and thread count; every call is counted. Products of equal shape share their
/// primitives, which are built when first used and kept until `forget`.
class Kernels {
 public:
  /// @throws DeviceError for a backend or dtype that this build lacks.
  Kernels(std::string backend, DType dtype, int threads);

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] int threads() const { return threads_; }
  [[nodiscard]] std::size_t element_bytes() const { return element_bytes_; }
  [[nodiscard]] std::size_t packed_bytes(std::int64_t n, std::int64_t k) { return gemm(n, k).packed_bytes(); }
  void pack(std::int64_t n, std::int64_t k, const float* weights, std::byte* packed);
  /// Drops primitives and their code; the next call builds them again.
  void forget() { gemms_.clear(); }

  /// c [m, n] = a [m, k] * weights; a in the dtype, c fp32.
  void multiply(Stage stage, const Linear& linear, const std::byte* weights, std::int64_t m, const std::byte* a,
                float* c);
  void activate(Stage stage, const float* h, std::byte* out, std::int64_t m, const ExpertSpec& spec);
  void norm(const float* x, const float* weight, std::byte* out, std::int64_t m, std::int64_t hidden);
  void convert(Stage stage, const float* x, std::byte* out, std::int64_t size);
  void permute(const std::byte* x, std::byte* permuted, std::span<const std::int32_t> position, std::int64_t tokens,
               int slots, std::int64_t hidden, std::int64_t rows);
  void unpermute(const float* y, float* out, std::span<const std::int32_t> position, std::span<const float> weights,
                 std::int64_t tokens, int slots, std::int64_t width, std::int64_t rows);
  void gather(const std::byte* x, std::byte* out, std::span<const std::int32_t> token_of, std::int64_t hidden);
  void scatter_add(const float* y, float* out, std::span<const std::int32_t> token_of, std::span<const float> weights,
                   std::int64_t width);
  void attend(const AttentionBlock& block, const float* q, const std::byte* keys, const std::byte* values,
              std::byte* out, std::int64_t batch, std::int64_t query, std::int64_t context);
  void add(Stage stage, const float* x, float* sum, std::int64_t size);
  void add_bias(Stage stage, const float* bias, float* x, std::int64_t m, std::int64_t n);

  /// Counts a pass over activations that is written in place elsewhere.
  void count(Stage stage, std::int64_t read_bytes, std::int64_t written_bytes);
  Counters counters;
  /// Where not null, gets the weights and cached keys and values that calls read.
  std::vector<Region>* touched = nullptr;

 private:
  Gemm& gemm(std::int64_t n, std::int64_t k);
  std::string backend_;
  DType dtype_;
  int threads_;
  std::size_t element_bytes_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::unique_ptr<Gemm>> gemms_;
};

}  // namespace moecast
