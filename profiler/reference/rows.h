#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "models/core/dtype.h"

// Row operations of the reference runtime that the microbenchmarks have no kernel for. All matrices are row major.

namespace moecast {

inline constexpr double kRopeBase = 10000;  ///< Su et al. 2021

/// out[r] = x[token_of[r]].
void gather_rows(const std::byte* x, std::byte* out, std::span<const std::int32_t> token_of, std::size_t row_bytes,
                 int threads);
/// out[token_of[r]] += weights[r] * y[r]; tokens are distinct.
void scatter_add_rows(const float* y, float* out, std::span<const std::int32_t> token_of,
                      std::span<const float> weights, std::int64_t width, int threads);
/// sum += x.
void add_rows(const float* x, float* sum, std::int64_t count, int threads);
/// x[r] += bias [n] in each of m rows.
void add_bias_rows(const float* bias, float* x, std::int64_t m, std::int64_t n, int threads);
/// x[r] += y[r] * sigmoid(gate[r]).
void add_gated_rows(const float* y, const float* gate, float* x, std::int64_t m, std::int64_t n, int threads);

struct RopeShape {
  std::int64_t batch = 1;
  std::int64_t query = 1;     ///< new tokens of a sequence
  std::int64_t context = 0;   ///< position of the first new token
  std::int64_t capacity = 1;  ///< entries that a sequence has in the caches
  int heads = 1;
  int kv_heads = 1;
  int head_dim = 2;
  DType dtype = DType::fp32;
};

/// Cosine and sine [query, head_dim / 2] of the new positions.
struct RopeTable {
  std::vector<float> cosine;
  std::vector<float> sine;
};
RopeTable rope_table(const RopeShape& shape);

/// Splits qkv [batch * query, (heads + 2 kv_heads) head_dim]: turned queries to q [batch, query, heads, head_dim] fp32,
/// turned keys and values to the new entries of the caches [batch, capacity, kv_heads, head_dim] in the dtype.
void rope_to_cache(const float* qkv, const RopeTable& table, const RopeShape& shape, float* q, std::byte* keys,
                   std::byte* values, int threads);

}  // namespace moecast
