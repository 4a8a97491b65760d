#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

/// Launchers of the own kernels. All pointers are device memory; bf16 arrays are passed as void*. Each launches into
/// `stream` and returns at once; errors show in cudaGetLastError.
namespace moecast::gpu {

void fill_random(void* data, std::size_t bytes, std::uint32_t seed, cudaStream_t stream);  ///< bf16 in [-1, 1)
void empty(cudaStream_t stream);
/// Keeps the stream busy for about `seconds` (at most 4): what is launched behind it queues up.
void wait(double seconds, cudaStream_t stream);
/// Reads `bytes` (a multiple of 16) with 16-byte loads; the sum goes to `sink` only if it is a value it never has.
void read(const void* data, std::size_t bytes, std::uint32_t* sink, int multiprocessors, cudaStream_t stream);
/// Copies with 16-byte accesses.
void copy(const void* from, void* to, std::size_t bytes, int multiprocessors, cudaStream_t stream);

struct RouterCall {
  const float* logits;  ///< [tokens, experts]
  float* weights;       ///< [tokens, top_k]
  std::int32_t* chosen;
  int tokens;
  int experts;  ///< at most 512
  int top_k;    ///< at most 16
};
/// Softmax over the experts, then the top_k largest weights as they are; one warp a token.
void router(const RouterCall& call, cudaStream_t stream);

struct RowCall {
  const void* input;
  void* output;
  int rows;
  int width;  ///< a multiple of 8
};
/// output[t * top_k + j] = input[t]: rows laid out for the experts, order scattered by a fixed permutation.
void permute(const RowCall& call, int top_k, cudaStream_t stream);
/// output[t] = mean of its top_k scattered rows.
void unpermute(const RowCall& call, int top_k, cudaStream_t stream);
/// gated: output[r] = silu(input[r, 0..w)) * input[r, w..2w); otherwise silu(input[r]).
void activation(const RowCall& call, bool gated, cudaStream_t stream);
/// RMS norm, one block a row, fp32 sums.
void norm(const RowCall& call, cudaStream_t stream);
/// output = input + other.
void add(const RowCall& call, const void* other, cudaStream_t stream);

}  // namespace moecast::gpu
