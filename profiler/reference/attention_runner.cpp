#include "profiler/reference/attention_runner.h"

namespace moecast {

AttentionRunner::AttentionRunner(const AttentionBlock& block, const BatchShape& step, std::int64_t index,
                                 Kernels& kernels, Layout& weights, Layout& scratch)
    : block_(block), step_(step), index_(index), kernels_(kernels) {
  const std::int64_t q_width = block.heads * block.head_dim;
  const std::int64_t kv_width = block.kv_heads * block.head_dim;
  rope_ = {.batch = step.batch,
           .query = step.query,
           .context = step.context,
           .capacity = step.context + step.query,
           .heads = static_cast<int>(block.heads),
           .kv_heads = static_cast<int>(block.kv_heads),
           .head_dim = static_cast<int>(block.head_dim),
           .dtype = kernels.dtype()};
  table_ = rope_table(rope_);
  qkv_ = {.n = q_width + 2 * kv_width, .k = step.hidden};
  out_ = {.n = step.hidden, .k = q_width};
  qkv_.offset = weights.reserve(kernels.packed_bytes(qkv_.n, qkv_.k));
  out_.offset = weights.reserve(kernels.packed_bytes(out_.n, out_.k));
  keys_ = weights.reserve(step.batch * rope_.capacity, kv_width, kernels.element_bytes());
  values_ = weights.reserve(step.batch * rope_.capacity, kv_width, kernels.element_bytes());
  qkv_rows_ = scratch.reserve(step.tokens, qkv_.n, sizeof(float));
  q_rows_ = scratch.reserve(step.tokens, q_width, sizeof(float));
  mixed_ = scratch.reserve(step.tokens, q_width, kernels.element_bytes());
}

void AttentionRunner::fill_cache(const Filler& filler, const WeightKey& key, std::byte* cache) const {
  const std::int64_t width = block_.kv_heads * block_.head_dim;
  const Matrix older = filler.source().draw(key, step_.batch * step_.context, width, 1);
  for (std::int64_t b = 0; b < step_.batch; ++b) {
    Matrix sequence(step_.context, width);
    for (std::int64_t s = 0; s < step_.context; ++s) {
      std::ranges::copy(older.row(b * step_.context + s), sequence.row(s).begin());
    }
    filler.elements(sequence, cache + static_cast<std::size_t>(b * rope_.capacity * width) * kernels_.element_bytes());
  }
}

void AttentionRunner::fill(Filler& filler, std::int64_t copy, std::byte* weights) {
  WeightKey key{.part = Part::qkv, .copy = copy, .block = index_};
  filler.linear(qkv_, key, weights);
  key.part = Part::attention_out;
  filler.linear(out_, key, weights);
  key.part = Part::key_cache;
  fill_cache(filler, key, weights + keys_);
  key.part = Part::value_cache;
  fill_cache(filler, key, weights + values_);
}

void AttentionRunner::run(std::byte* weights, std::byte* scratch, const std::byte* x, float* out) {
  auto* qkv = reinterpret_cast<float*>(scratch + qkv_rows_);
  auto* q = reinterpret_cast<float*>(scratch + q_rows_);
  std::byte* mixed = scratch + mixed_;
  kernels_.multiply(Stage::attention, qkv_, weights, step_.tokens, x, qkv);
  rope_to_cache(qkv, table_, rope_, q, weights + keys_, weights + values_, kernels_.threads());
  const std::int64_t kv_width = 2 * block_.kv_heads * block_.head_dim;
  kernels_.count(Stage::attention, step_.tokens * qkv_.n * static_cast<std::int64_t>(sizeof(float)),
                 step_.tokens * (out_.k * static_cast<std::int64_t>(sizeof(float)) +
                                 kv_width * static_cast<std::int64_t>(kernels_.element_bytes())));
  kernels_.attend(block_, q, weights + keys_, weights + values_, mixed, step_.batch, step_.query, step_.context);
  kernels_.multiply(Stage::attention, out_, weights, step_.tokens, mixed, out);
}

}  // namespace moecast
