#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "models/core/error.h"
#include "profiler/cpu/bf16.h"
#include "profiler/cpu/stages.h"

namespace moecast {
namespace {

/// Keys taken at a time: a block of scores and of values stays in the first-level cache.
constexpr std::int64_t kBlock = 64;

inline float load(const float* row, std::int64_t i) { return row[i]; }
inline float load(const std::uint16_t* row, std::int64_t i) { return bf16_to_float(row[i]); }

template <class Element>
float dot(const float* query, const Element* key, int size) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < size; ++i) sum += query[i] * load(key, i);
  return sum;
}

/// One query row against `visible` keys of one head with a running maximum (online softmax). `sum` [size] is scratch.
template <class Element>
void attend_row(const float* query, const Element* keys, const Element* values, std::int64_t stride,
                std::int64_t visible, int size, float* sum) {
  const float scale = 1.0F / std::sqrt(static_cast<float>(size));
  float maximum = -std::numeric_limits<float>::infinity();
  float total = 0;
  std::fill(sum, sum + size, 0.0F);
  float scores[kBlock];
  for (std::int64_t first = 0; first < visible; first += kBlock) {
    const std::int64_t count = std::min(kBlock, visible - first);
    float block_maximum = maximum;
    for (std::int64_t j = 0; j < count; ++j) {
      scores[j] = scale * dot(query, keys + (first + j) * stride, size);
      block_maximum = std::max(block_maximum, scores[j]);
    }
    const float correction = std::exp(maximum - block_maximum);
    maximum = block_maximum;
    total *= correction;
    for (int i = 0; i < size; ++i) sum[i] *= correction;
    for (std::int64_t j = 0; j < count; ++j) {
      const float weight = std::exp(scores[j] - maximum);
      total += weight;
      const Element* value = values + (first + j) * stride;
#pragma omp simd
      for (int i = 0; i < size; ++i) sum[i] += weight * load(value, i);
    }
  }
  for (int i = 0; i < size; ++i) sum[i] /= total;
}

template <class Element>
Element convert(float value) {
  if constexpr (std::is_same_v<Element, float>) {
    return value;
  } else {
    return float_to_bf16(value);
  }
}

template <class Element>
void attend(const float* q, const Element* keys, const Element* values, Element* out, std::int64_t batch,
            std::int64_t query, std::int64_t context, std::int64_t capacity, int heads, int kv_heads, int head_dim,
            int threads) {
  const std::int64_t rows = batch * query * heads;
  const std::int64_t stride = static_cast<std::int64_t>(kv_heads) * head_dim;
#pragma omp parallel num_threads(threads) if (threads > 1 && rows > 1)
  {
    std::vector<float> sum(static_cast<std::size_t>(head_dim));
#pragma omp for schedule(static)
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t head = row % heads;
      const std::int64_t token = row / heads % query;
      const std::int64_t sequence = row / heads / query;
      const std::int64_t base = (sequence * capacity * kv_heads + head / (heads / kv_heads)) * head_dim;
      const std::int64_t visible = context - query + token + 1;
      attend_row(q + row * head_dim, keys + base, values + base, stride, visible, head_dim, sum.data());
      for (int i = 0; i < head_dim; ++i) out[row * head_dim + i] = convert<Element>(sum[static_cast<std::size_t>(i)]);
    }
  }
}

}  // namespace

void attention(const float* q, const void* k_cache, const void* v_cache, void* out, std::int64_t batch,
               std::int64_t query, std::int64_t context, std::int64_t capacity, int heads, int kv_heads, int head_dim,
               DType dtype, int threads) {
  if (kv_heads < 1 || heads % kv_heads != 0) throw InputError("", "heads must be a multiple of kv_heads");
  if (query < 1 || context < query || capacity < context) {
    throw InputError("", "attention needs 1 <= query <= context <= capacity");
  }
  if (dtype == DType::fp32) {
    attend(q, static_cast<const float*>(k_cache), static_cast<const float*>(v_cache), static_cast<float*>(out), batch,
           query, context, capacity, heads, kv_heads, head_dim, threads);
  } else if (dtype == DType::bf16) {
    attend(q, static_cast<const std::uint16_t*>(k_cache), static_cast<const std::uint16_t*>(v_cache),
           static_cast<std::uint16_t*>(out), batch, query, context, capacity, heads, kv_heads, head_dim, threads);
  } else {
    throw DeviceError("", "attention runs in fp32 and bf16, not in " + std::string(to_string(dtype)));
  }
}

}  // namespace moecast
