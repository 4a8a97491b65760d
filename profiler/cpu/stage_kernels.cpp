#include "profiler/cpu/stage_kernels.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "models/core/error.h"
#include "profiler/cpu/router.h"
#include "profiler/cpu/stages.h"

namespace moecast {
namespace {

const float* floats(const std::byte* data) { return reinterpret_cast<const float*>(data); }
float* floats(std::byte* data) { return reinterpret_cast<float*>(data); }
std::size_t size(double elements, double bytes) { return static_cast<std::size_t>(elements * bytes); }

/// Experts of a permute benchmark: only the order of rows depends on them.
constexpr std::int64_t kPermuteExperts = 16;
/// Less is not worth a second thread.
constexpr std::size_t kSharedBytes = std::size_t{1} << 20;
constexpr std::uint64_t kNeverSum = 0x9e3779b97f4a7c15;

/// Positions of T k copies after sorting by uniformly drawn experts.
struct Sorted {
  std::vector<std::int32_t> expert_of, position, offsets;
  std::vector<float> weights;
};

std::shared_ptr<Sorted> sorted_rows(std::int64_t tokens, std::int64_t top_k) {
  auto sorted = std::make_shared<Sorted>();
  std::mt19937 generator(1);
  std::uniform_int_distribution<std::int32_t> draw(0, kPermuteExperts - 1);
  sorted->expert_of.resize(static_cast<std::size_t>(tokens * top_k));
  for (auto& expert : sorted->expert_of) expert = draw(generator);
  sorted->position.resize(sorted->expert_of.size());
  sorted->offsets.resize(kPermuteExperts + 1);
  sorted->weights.assign(sorted->expert_of.size(), 1.0F / static_cast<float>(top_k));
  sort_by_expert(sorted->expert_of, kPermuteExperts, sorted->position, sorted->offsets);
  return sorted;
}

StageKernel router_kernel(const OperatorShape& s) {
  struct State {
    RouterSpec router;
    std::vector<float> shift, weights;
    std::vector<std::int32_t> expert_of;
  };
  auto state = std::make_shared<State>();
  state->router.top_k = static_cast<int>(s.top_k);
  if (s.groups > 1) {
    state->router.groups = static_cast<int>(s.groups);
    state->router.top_groups = std::max(1, static_cast<int>(s.groups) / 2);
  }
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  state->shift.resize(static_cast<std::size_t>(s.tokens * s.experts));
  for (float& x : state->shift) x = normal(generator);
  state->expert_of.resize(static_cast<std::size_t>(s.tokens * s.top_k));
  state->weights.resize(state->expert_of.size());
  const auto count = static_cast<std::size_t>(s.tokens * s.experts);
  return {count * sizeof(float), state->expert_of.size() * 8, [state, s, count](const std::byte* in, std::byte*) {
            route_top_k(state->router, {floats(in), count}, {}, state->shift, s.tokens, s.experts, state->expert_of,
                        state->weights);
          }};
}

StageKernel permute_kernel(const OperatorShape& s, double element, int threads) {
  auto sorted = sorted_rows(s.tokens, s.top_k);
  const std::size_t row = size(static_cast<double>(s.hidden), element);
  const auto tokens = static_cast<std::size_t>(s.tokens);
  return {tokens * row, tokens * static_cast<std::size_t>(s.top_k) * row,
          [sorted, s, row, threads](const std::byte* in, std::byte* out) {
            sort_by_expert(sorted->expert_of, kPermuteExperts, sorted->position, sorted->offsets);
            permute_rows(in, out, sorted->position, s.tokens, static_cast<int>(s.top_k), row, threads);
          }};
}

StageKernel unpermute_kernel(const OperatorShape& s, int threads) {
  auto sorted = sorted_rows(s.tokens, s.top_k);
  const std::size_t row = size(static_cast<double>(s.hidden), sizeof(float));
  const auto tokens = static_cast<std::size_t>(s.tokens);
  return {tokens * static_cast<std::size_t>(s.top_k) * row, tokens * row,
          [sorted, s, threads](const std::byte* in, std::byte* out) {
            unpermute_rows(floats(in), floats(out), sorted->position, sorted->weights, s.tokens,
                           static_cast<int>(s.top_k), s.hidden, threads);
          }};
}

StageKernel attention_kernel(const OperatorShape& s, DType dtype, int threads) {
  const double element = bytes_per_element(dtype);
  const auto cache = static_cast<double>(s.batch * s.context * s.kv_heads * s.head_dim);
  auto query =
      std::make_shared<std::vector<float>>(static_cast<std::size_t>(s.batch * s.query * s.heads * s.head_dim), 0.01F);
  const std::size_t half = size(cache, element);
  return {2 * half, size(static_cast<double>(query->size()), element),
          [query, s, half, dtype, threads](const std::byte* in, std::byte* out) {
            attention(query->data(), in, in + half, out, s.batch, s.query, s.context, s.context,
                      static_cast<int>(s.heads), static_cast<int>(s.kv_heads), static_cast<int>(s.head_dim), dtype,
                      threads);
          }};
}

StageKernel norm_kernel(const OperatorShape& s, DType dtype, int threads) {
  auto weight = std::make_shared<std::vector<float>>(static_cast<std::size_t>(s.hidden), 1.0F);
  const auto count = static_cast<double>(s.m * s.hidden);
  return {size(count, 4), size(count, bytes_per_element(dtype)), [=](const std::byte* in, std::byte* out) {
            rms_norm(floats(in), weight->data(), out, s.m, s.hidden, dtype, threads);
          }};
}

StageKernel activation_kernel(const OperatorShape& s, DType dtype, int threads) {
  const auto count = static_cast<double>(s.m * s.width);
  return {size(count * (s.gated != 0 ? 2 : 1), 4), size(count, bytes_per_element(dtype)),
          [=](const std::byte* in, std::byte* out) {
            activate(floats(in), out, s.m, s.width, s.gated != 0, s.gated != 0 ? Activation::silu : Activation::relu,
                     dtype, threads);
          }};
}

/// Four sums side by side: adding up must not be what takes the time.
std::uint64_t sum_words(const std::byte* in, std::size_t bytes) {
  typedef std::uint64_t Words __attribute__((vector_size(32), aligned(8)));
  Words first{};
  Words second{};
  Words third{};
  Words fourth{};
  const auto* words = reinterpret_cast<const Words*>(in);
  const std::size_t count = bytes / sizeof(Words);
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    first += words[i];
    second += words[i + 1];
    third += words[i + 2];
    fourth += words[i + 3];
  }
  for (; i < count; ++i) first += words[i];
  const Words all = first + second + third + fourth;
  return all[0] + all[1] + all[2] + all[3];
}

/// Calls `part(first, bytes)` for every thread's share, whole cache lines each.
template <class Part>
void share_out(std::size_t bytes, int threads, Part part) {
  if (threads == 1 || bytes < kSharedBytes) {
    part(std::size_t{0}, bytes);
    return;
  }
  const std::size_t share = bytes / static_cast<std::size_t>(threads) / 64 * 64;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int t = 0; t < threads; ++t) {
    const std::size_t first = share * static_cast<std::size_t>(t);
    part(first, t + 1 == threads ? bytes - first : share);
  }
}

}  // namespace

StageKernel make_stage_kernel(const KernelPoint& point) {
  const OperatorShape& s = point.shape;
  const int threads = point.threads;
  switch (point.kind) {
    case OperatorKind::router: return router_kernel(s);
    case OperatorKind::permute: return permute_kernel(s, bytes_per_element(point.dtype), threads);
    case OperatorKind::unpermute: return unpermute_kernel(s, threads);
    case OperatorKind::activation: return activation_kernel(s, point.dtype, threads);
    case OperatorKind::norm: return norm_kernel(s, point.dtype, threads);
    case OperatorKind::elementwise: {
      const std::size_t bytes = size(static_cast<double>(s.m * s.width), 4);
      return {bytes, bytes,
              [=](const std::byte* in, std::byte* out) { add_rows(floats(in), floats(out), s.m, s.width, threads); }};
    }
    case OperatorKind::attention_prefill:
    case OperatorKind::attention_decode: return attention_kernel(s, point.dtype, threads);
    case OperatorKind::copy: {
      const auto bytes = static_cast<std::size_t>(s.bytes);
      return {bytes, bytes, [bytes, threads](const std::byte* in, std::byte* out) {
                share_out(bytes, threads,
                          [&](std::size_t first, std::size_t part) { std::memcpy(out + first, in + first, part); });
              }};
    }
    case OperatorKind::read: {
      const auto bytes = static_cast<std::size_t>(s.bytes);
      return {bytes, 8, [bytes, threads](const std::byte* in, std::byte* out) {
                share_out(bytes, threads, [&](std::size_t first, std::size_t part) {
                  const std::uint64_t sum = sum_words(in + first, part);
                  if (sum == kNeverSum) std::memcpy(out, &sum, sizeof sum);  // so that reading is not optimised away
                });
              }};
    }
    default: throw InputError("", std::string(to_string(point.kind)) + " is not a kernel of a CPU");
  }
}

}  // namespace moecast
