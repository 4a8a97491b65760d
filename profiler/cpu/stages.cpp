#include "profiler/cpu/stages.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <vector>

#include "models/core/error.h"
#include "profiler/cpu/bf16.h"

namespace moecast {
namespace {

/// exp(x) by 2^floor * polynomial: vectorises; relative error below 3e-6 for x in [-44, 44], clamped outside. A wider
/// clamp costs: the compiler computes x / (1 + exp(clamp)) for every lane and picks afterwards, and at 2^126 that is a
/// denormal number, which took 17 times as long (and made a layer's time depend on its data).
inline float fast_exp(float x) {
  const float y = std::min(std::max(x * 1.44269504F, -64.0F), 64.0F);
  const float whole = std::floor(y);
  const float r = y - whole;
  const float p =
      1.0F +
      r * (0.69314718F + r * (0.24022651F + r * (0.05550411F + r * (0.00961812F + r * (0.00133336F + r * 0.000154F)))));
  return p * std::bit_cast<float>((static_cast<std::int32_t>(whole) + 127) << 23);
}

inline float silu(float x) { return x / (1.0F + fast_exp(-x)); }
/// The tanh form of GELU.
inline float gelu(float x) { return x / (1.0F + fast_exp(-1.5957691F * (x + 0.044715F * x * x * x))); }

template <DType Out>
void store(void* out, std::int64_t index, float value) {
  if constexpr (Out == DType::bf16) {
    static_cast<std::uint16_t*>(out)[index] = float_to_bf16(value);
  } else {
    static_cast<float*>(out)[index] = value;
  }
}

template <DType Out, class Function>
void activate_rows(const float* h, void* out, std::int64_t m, std::int64_t width, bool gated, int threads,
                   Function function) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && m > 1)
  for (std::int64_t row = 0; row < m; ++row) {
    const float* gate = h + row * width * (gated ? 2 : 1);
    const float* up = gate + width;
    const std::int64_t base = row * width;
    if (gated) {
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) store<Out>(out, base + i, function(gate[i]) * up[i]);
    } else {
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) store<Out>(out, base + i, function(gate[i]));
    }
  }
}

template <DType Out>
void activate_as(const float* h, void* out, std::int64_t m, std::int64_t width, bool gated, Activation activation,
                 int threads) {
  const auto rows = [&](auto function) { activate_rows<Out>(h, out, m, width, gated, threads, function); };
  switch (activation) {
    case Activation::relu: return rows([](float x) { return std::max(x, 0.0F); });
    case Activation::relu_squared: return rows([](float x) { return std::max(x, 0.0F) * std::max(x, 0.0F); });
    case Activation::gelu: return rows([](float x) { return gelu(x); });
    case Activation::silu: return rows([](float x) { return silu(x); });
    case Activation::identity: return rows([](float x) { return x; });
  }
}

void require_cpu_dtype(DType dtype) {
  if (dtype != DType::fp32 && dtype != DType::bf16) {
    throw DeviceError("", "CPU stages run in fp32 and bf16, not in " + std::string(to_string(dtype)));
  }
}

}  // namespace

void activate(const float* h, void* out, std::int64_t m, std::int64_t width, bool gated, Activation activation,
              DType dtype, int threads) {
  require_cpu_dtype(dtype);
  if (dtype == DType::bf16) return activate_as<DType::bf16>(h, out, m, width, gated, activation, threads);
  activate_as<DType::fp32>(h, out, m, width, gated, activation, threads);
}

void sort_by_expert(std::span<const std::int32_t> expert_of, [[maybe_unused]] std::int64_t experts,
                    std::span<std::int32_t> position, std::span<std::int32_t> offsets) {
  assert(offsets.size() == static_cast<std::size_t>(experts) + 1 && position.size() == expert_of.size());
  std::fill(offsets.begin(), offsets.end(), 0);
  for (const std::int32_t expert : expert_of) {
    if (expert >= 0) ++offsets[static_cast<std::size_t>(expert) + 1];
  }
  for (std::size_t e = 1; e < offsets.size(); ++e) offsets[e] += offsets[e - 1];
  // The running position of an expert lives in offsets[expert]; shifting back afterwards restores the prefix sums.
  for (std::size_t i = 0; i < expert_of.size(); ++i) {
    position[i] = expert_of[i] >= 0 ? offsets[static_cast<std::size_t>(expert_of[i])]++ : -1;
  }
  for (std::size_t e = offsets.size() - 1; e > 0; --e) offsets[e] = offsets[e - 1];
  offsets[0] = 0;
}

void permute_rows(const void* x, void* permuted, std::span<const std::int32_t> position, std::int64_t tokens, int top_k,
                  std::size_t row_bytes, int threads) {
  const auto* from = static_cast<const char*>(x);
  auto* to = static_cast<char*>(permuted);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && tokens > 1)
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (int j = 0; j < top_k; ++j) {
      const std::int32_t row = position[static_cast<std::size_t>(t * top_k + j)];
      if (row >= 0) std::memcpy(to + static_cast<std::size_t>(row) * row_bytes, from + t * row_bytes, row_bytes);
    }
  }
}

void unpermute_rows(const float* y, float* out, std::span<const std::int32_t> position, std::span<const float> weights,
                    std::int64_t tokens, int top_k, std::int64_t hidden, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && tokens > 1)
  for (std::int64_t t = 0; t < tokens; ++t) {
    float* sum = out + t * hidden;
    bool first = true;
    for (int j = 0; j < top_k; ++j) {
      const auto copy = static_cast<std::size_t>(t * top_k + j);
      if (position[copy] < 0) continue;
      const float* row = y + position[copy] * hidden;
      const float weight = weights[copy];
      if (first) {
#pragma omp simd
        for (std::int64_t i = 0; i < hidden; ++i) sum[i] = weight * row[i];
      } else {
#pragma omp simd
        for (std::int64_t i = 0; i < hidden; ++i) sum[i] += weight * row[i];
      }
      first = false;
    }
    if (first) std::fill(sum, sum + hidden, 0.0F);
  }
}

void rms_norm(const float* x, const float* weight, void* out, std::int64_t m, std::int64_t hidden, DType dtype,
              int threads) {
  require_cpu_dtype(dtype);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && m > 1)
  for (std::int64_t row = 0; row < m; ++row) {
    const float* in = x + row * hidden;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < hidden; ++i) sum += in[i] * in[i];
    const float scale = 1.0F / std::sqrt(sum / static_cast<float>(hidden) + kNormEpsilon);
    if (dtype == DType::bf16) {
#pragma omp simd
      for (std::int64_t i = 0; i < hidden; ++i) store<DType::bf16>(out, row * hidden + i, in[i] * scale * weight[i]);
    } else {
#pragma omp simd
      for (std::int64_t i = 0; i < hidden; ++i) store<DType::fp32>(out, row * hidden + i, in[i] * scale * weight[i]);
    }
  }
}

void add_rows(const float* x, float* sum, std::int64_t m, std::int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && m > 1)
  for (std::int64_t row = 0; row < m; ++row) {
    const float* from = x + row * width;
    float* to = sum + row * width;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) to[i] += from[i];
  }
}

void to_dtype(const float* x, void* out, std::int64_t count, DType dtype, int threads) {
  require_cpu_dtype(dtype);
  if (dtype == DType::fp32) {
    std::memcpy(out, x, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
#pragma omp parallel for simd schedule(static) num_threads(threads) if (threads > 1 && count > 65536)
  for (std::int64_t i = 0; i < count; ++i) store<DType::bf16>(out, i, x[i]);
}

}  // namespace moecast
