#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "models/architecture/moe.h"
#include "models/core/dtype.h"

// The element-wise stages of a CPU MoE layer: the same code in the microbenchmarks and in the reference runtime.
// All matrices are row major; `threads` rows are split statically.

namespace moecast {

/// out[m, width] (dtype) = activation(h); gated: h is [m, 2 width] (gate, up), out = activation(gate) * up.
void activate(const float* h, void* out, std::int64_t m, std::int64_t width, bool gated, Activation activation,
              DType dtype, int threads);

/// position[t * k + j] = row of copy j of token t when rows are sorted by expert (stable); offsets[E + 1] = prefix
/// sums.
void sort_by_expert(std::span<const std::int32_t> expert_of, std::int64_t experts, std::span<std::int32_t> position,
                    std::span<std::int32_t> offsets);

/// permuted[position[t * k + j]] = x[t]; rows of `row_bytes` bytes; a negative position is dropped.
void permute_rows(const void* x, void* permuted, std::span<const std::int32_t> position, std::int64_t tokens, int top_k,
                  std::size_t row_bytes, int threads);

/// out[t] = sum_j weight[t * k + j] * y[position[t * k + j]]; a negative position adds nothing.
void unpermute_rows(const float* y, float* out, std::span<const std::int32_t> position, std::span<const float> weights,
                    std::int64_t tokens, int top_k, std::int64_t hidden, int threads);

inline constexpr float kNormEpsilon = 1e-6F;  ///< added to the mean square of a norm

/// RMS norm with weight, fp32 in, `dtype` out.
void rms_norm(const float* x, const float* weight, void* out, std::int64_t m, std::int64_t hidden, DType dtype,
              int threads);

/// Causal attention of `query` new tokens per sequence over a KV cache that already holds them.
/// q [batch, query, heads, d] fp32; k, v caches [batch, capacity, kv_heads, d] in dtype, `context` entries valid
/// (the last `query` of them belong to the new tokens); out [batch, query, heads, d] in dtype.
void attention(const float* q, const void* k_cache, const void* v_cache, void* out, std::int64_t batch,
               std::int64_t query, std::int64_t context, std::int64_t capacity, int heads, int kv_heads, int head_dim,
               DType dtype, int threads);

/// sum[m, width] += x[m, width]: a residual connection.
void add_rows(const float* x, float* sum, std::int64_t m, std::int64_t width, int threads);

void to_dtype(const float* x, void* out, std::int64_t count, DType dtype, int threads);

}  // namespace moecast
