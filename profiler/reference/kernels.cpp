#include "profiler/reference/kernels.h"

#include "profiler/cpu/stages.h"
#include "profiler/reference/rows.h"

namespace moecast {
namespace {
Bytes bytes(std::int64_t count, std::size_t element) {
  return Bytes(static_cast<double>(count) * static_cast<double>(element));
}
constexpr std::size_t kFloat = sizeof(float);
}  // namespace

Kernels::Kernels(std::string backend, DType dtype, int threads)
    : backend_(std::move(backend)),
      dtype_(dtype),
      threads_(threads),
      element_bytes_(static_cast<std::size_t>(bytes_per_element(dtype))) {}

Gemm& Kernels::gemm(std::int64_t n, std::int64_t k) {
  std::unique_ptr<Gemm>& entry = gemms_[{n, k}];
  if (!entry) entry = make_gemm(backend_, dtype_, n, k, threads_);
  return *entry;
}

void Kernels::pack(std::int64_t n, std::int64_t k, const float* weights, std::byte* packed) {
  gemm(n, k).pack(weights, packed);
}

void Kernels::count(Stage stage, std::int64_t read_bytes, std::int64_t written_bytes) {
  StageCounters& counter = counters[stage];
  ++counter.calls;
  counter.read_bytes += bytes(read_bytes, 1);
  counter.written_bytes += bytes(written_bytes, 1);
}

void Kernels::multiply(Stage stage, const Linear& linear, const std::byte* weights, std::int64_t m, const std::byte* a,
                       float* c) {
  Gemm& product = gemm(linear.n, linear.k);
  product.run(m, a, weights + linear.offset, c);
  if (touched != nullptr) touched->emplace_back(weights + linear.offset, product.packed_bytes());
  StageCounters& counter = counters[stage];
  ++counter.calls;
  ++counter.gemm_calls;
  counter.flops += Flops(2.0 * static_cast<double>(m) * static_cast<double>(linear.n) * static_cast<double>(linear.k));
  counter.weight_bytes += bytes(linear.n * linear.k, element_bytes_);
  counter.read_bytes += bytes(m * linear.k, element_bytes_);
  counter.written_bytes += bytes(m * linear.n, kFloat);
}

void Kernels::activate(Stage stage, const float* h, std::byte* out, std::int64_t m, const ExpertSpec& spec) {
  moecast::activate(h, out, m, spec.width, spec.gated, spec.activation, dtype_, threads_);
  StageCounters& counter = counters[stage];
  ++counter.calls;
  counter.read_bytes += bytes(m * spec.width * (spec.gated ? 2 : 1), kFloat);
  counter.written_bytes += bytes(m * spec.width, element_bytes_);
}

void Kernels::norm(const float* x, const float* weight, std::byte* out, std::int64_t m, std::int64_t hidden) {
  rms_norm(x, weight, out, m, hidden, dtype_, threads_);
  StageCounters& counter = counters[Stage::norm];
  ++counter.calls;
  counter.weight_bytes += bytes(hidden, kFloat);
  counter.read_bytes += bytes(m * hidden, kFloat);
  counter.written_bytes += bytes(m * hidden, element_bytes_);
}

void Kernels::convert(Stage stage, const float* x, std::byte* out, std::int64_t size) {
  to_dtype(x, out, size, dtype_, threads_);
  StageCounters& counter = counters[stage];
  ++counter.calls;
  counter.read_bytes += bytes(size, kFloat);
  counter.written_bytes += bytes(size, element_bytes_);
}

void Kernels::permute(const std::byte* x, std::byte* permuted, std::span<const std::int32_t> position,
                      std::int64_t tokens, int slots, std::int64_t hidden, std::int64_t rows) {
  permute_rows(x, permuted, position, tokens, slots, static_cast<std::size_t>(hidden) * element_bytes_, threads_);
  StageCounters& counter = counters[Stage::dispatch];
  ++counter.calls;
  counter.read_bytes += bytes(tokens * hidden, element_bytes_);
  counter.written_bytes += bytes(rows * hidden, element_bytes_);
}

void Kernels::unpermute(const float* y, float* out, std::span<const std::int32_t> position,
                        std::span<const float> weights, std::int64_t tokens, int slots, std::int64_t width,
                        std::int64_t rows) {
  unpermute_rows(y, out, position, weights, tokens, slots, width, threads_);
  StageCounters& counter = counters[Stage::combine];
  ++counter.calls;
  counter.read_bytes += bytes(rows * width, kFloat);
  counter.written_bytes += bytes(tokens * width, kFloat);
}

void Kernels::gather(const std::byte* x, std::byte* out, std::span<const std::int32_t> token_of, std::int64_t hidden) {
  gather_rows(x, out, token_of, static_cast<std::size_t>(hidden) * element_bytes_, threads_);
  const auto rows = static_cast<std::int64_t>(token_of.size());
  StageCounters& counter = counters[Stage::dispatch];
  ++counter.calls;
  counter.read_bytes += bytes(rows * hidden, element_bytes_);
  counter.written_bytes += bytes(rows * hidden, element_bytes_);
}

void Kernels::scatter_add(const float* y, float* out, std::span<const std::int32_t> token_of,
                          std::span<const float> weights, std::int64_t width) {
  scatter_add_rows(y, out, token_of, weights, width, threads_);
  const auto rows = static_cast<std::int64_t>(token_of.size());
  StageCounters& counter = counters[Stage::combine];
  ++counter.calls;
  counter.read_bytes += bytes(2 * rows * width, kFloat);
  counter.written_bytes += bytes(rows * width, kFloat);
}

void Kernels::attend(const AttentionBlock& block, const float* q, const std::byte* keys, const std::byte* values,
                     std::byte* out, std::int64_t batch, std::int64_t query, std::int64_t context) {
  const std::int64_t entries = context + query;
  if (touched != nullptr) {
    const auto cached = static_cast<std::size_t>(batch * entries * block.kv_heads * block.head_dim) * element_bytes_;
    touched->emplace_back(keys, cached);
    touched->emplace_back(values, cached);
  }
  attention(q, keys, values, out, batch, query, entries, entries, static_cast<int>(block.heads),
            static_cast<int>(block.kv_heads), static_cast<int>(block.head_dim), dtype_, threads_);
  const std::int64_t q_elements = batch * query * block.heads * block.head_dim;
  // A token sees the older entries and its own predecessors: context + (query + 1) / 2 on average.
  const double pairs = static_cast<double>(batch * query * block.heads) *
                       (static_cast<double>(context) + 0.5 * static_cast<double>(query + 1));
  StageCounters& counter = counters[Stage::attention];
  ++counter.calls;
  counter.flops += Flops(4.0 * pairs * static_cast<double>(block.head_dim));
  counter.read_bytes +=
      bytes(q_elements, kFloat) + bytes(2 * batch * entries * block.kv_heads * block.head_dim, element_bytes_);
  counter.written_bytes += bytes(q_elements, element_bytes_);
}

void Kernels::add(Stage stage, const float* x, float* sum, std::int64_t size) {
  add_rows(x, sum, size, threads_);
  StageCounters& counter = counters[stage];
  ++counter.calls;
  counter.read_bytes += bytes(2 * size, kFloat);
  counter.written_bytes += bytes(size, kFloat);
}

void Kernels::add_bias(Stage stage, const float* bias, float* x, std::int64_t m, std::int64_t n) {
  add_bias_rows(bias, x, m, n, threads_);
  StageCounters& counter = counters[stage];
  ++counter.calls;
  counter.weight_bytes += bytes(n, kFloat);
  counter.read_bytes += bytes(m * n, kFloat);
  counter.written_bytes += bytes(m * n, kFloat);
}

}  // namespace moecast
