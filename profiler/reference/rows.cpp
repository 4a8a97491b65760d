#include "profiler/reference/rows.h"

#include <cmath>
#include <cstring>

#include "profiler/cpu/stages.h"

namespace moecast {

void gather_rows(const std::byte* x, std::byte* out, std::span<const std::int32_t> token_of, std::size_t row_bytes,
                 [[maybe_unused]] int threads) {
  const auto rows = static_cast<std::int64_t>(token_of.size());
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows > 1)
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto row = static_cast<std::size_t>(r);
    std::memcpy(out + row * row_bytes, x + static_cast<std::size_t>(token_of[row]) * row_bytes, row_bytes);
  }
}

void scatter_add_rows(const float* y, float* out, std::span<const std::int32_t> token_of,
                      std::span<const float> weights, std::int64_t width, [[maybe_unused]] int threads) {
  const auto rows = static_cast<std::int64_t>(token_of.size());
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows > 1)
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto row = static_cast<std::size_t>(r);
    float* target = out + static_cast<std::int64_t>(token_of[row]) * width;
    const float* source = y + r * width;
    const float weight = weights[row];
    for (std::int64_t c = 0; c < width; ++c) target[c] += weight * source[c];
  }
}

void add_rows(const float* x, float* sum, std::int64_t count, [[maybe_unused]] int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (std::int64_t i = 0; i < count; ++i) sum[i] += x[i];
}

void add_bias_rows(const float* bias, float* x, std::int64_t m, std::int64_t n, [[maybe_unused]] int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && m > 1)
  for (std::int64_t r = 0; r < m; ++r) {
    for (std::int64_t c = 0; c < n; ++c) x[r * n + c] += bias[c];
  }
}

void add_gated_rows(const float* y, const float* gate, float* x, std::int64_t m, std::int64_t n,
                    [[maybe_unused]] int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && m > 1)
  for (std::int64_t r = 0; r < m; ++r) {
    const float weight = 1.0F / (1.0F + std::exp(-gate[r]));
    for (std::int64_t c = 0; c < n; ++c) x[r * n + c] += weight * y[r * n + c];
  }
}

RopeTable rope_table(const RopeShape& shape) {
  RopeTable table;
  const int half = shape.head_dim / 2;
  for (std::int64_t t = 0; t < shape.query; ++t) {
    for (int i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(shape.context + t) * std::pow(kRopeBase, -2.0 * i / static_cast<double>(shape.head_dim));
      table.cosine.push_back(static_cast<float>(std::cos(angle)));
      table.sine.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return table;
}

namespace {

/// out = x turned by one position, head by head.
void turn_heads(const float* x, float* out, int heads, int head_dim, const float* cosine, const float* sine) {
  const int half = head_dim / 2;
  for (int h = 0; h < heads; ++h, x += head_dim, out += head_dim) {
    for (int i = 0; i < half; ++i) {
      const float a = x[i];
      const float b = x[half + i];
      out[i] = a * cosine[i] - b * sine[i];
      out[half + i] = b * cosine[i] + a * sine[i];
    }
  }
}

}  // namespace

void rope_to_cache(const float* qkv, const RopeTable& table, const RopeShape& shape, float* q, std::byte* keys,
                   std::byte* values, [[maybe_unused]] int threads) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t q_width = shape.heads * d;
  const std::int64_t kv_width = shape.kv_heads * d;
  const auto row_bytes = static_cast<std::size_t>(kv_width) * static_cast<std::size_t>(bytes_per_element(shape.dtype));
  const std::int64_t tokens = shape.batch * shape.query;
#pragma omp parallel num_threads(threads) if (threads > 1 && tokens > 1)
  {
    std::vector<float> turned(static_cast<std::size_t>(kv_width));
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t step = t % shape.query;
      const float* cosine = table.cosine.data() + step * (d / 2);
      const float* sine = table.sine.data() + step * (d / 2);
      const float* row = qkv + t * (q_width + 2 * kv_width);
      const std::size_t entry =
          static_cast<std::size_t>(t / shape.query * shape.capacity + shape.context + step) * row_bytes;
      turn_heads(row, q + t * q_width, shape.heads, shape.head_dim, cosine, sine);
      turn_heads(row + q_width, turned.data(), shape.kv_heads, shape.head_dim, cosine, sine);
      to_dtype(turned.data(), keys + entry, kv_width, shape.dtype, 1);
      to_dtype(row + q_width + kv_width, values + entry, kv_width, shape.dtype, 1);
    }
  }
}

}  // namespace moecast
