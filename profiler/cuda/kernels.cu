#include <cuda_bf16.h>

#include "profiler/cuda/kernels.cuh"

namespace moecast::gpu {
namespace {

constexpr int kBlock = 256;
constexpr int kWarp = 32;
constexpr int kVector = 8;  ///< bf16 values of a 16-byte access
constexpr int kMostExpertsOfALane = 16;

int blocks_for(std::size_t items) { return static_cast<int>((items + kBlock - 1) / kBlock); }

struct alignas(16) Vector {
  __nv_bfloat16 value[kVector];
};

__device__ std::uint32_t hash(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  return x ^ (x >> 16);
}

__global__ void fill_kernel(__nv_bfloat16* data, std::size_t count, std::uint32_t seed) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const std::uint32_t bits = hash(static_cast<std::uint32_t>(i) ^ hash(seed + static_cast<std::uint32_t>(i >> 32)));
    data[i] = __float2bfloat16(static_cast<float>(static_cast<std::int32_t>(bits)) * 4.656612873e-10F);
  }
}

__global__ void empty_kernel() {}

__global__ void wait_kernel(std::uint64_t nanoseconds) {
  std::uint64_t start = 0;
  std::uint64_t now = 0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  do {
    __nanosleep(1000);
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now - start < nanoseconds);
}

__global__ void read_kernel(const uint4* data, std::size_t count, std::uint32_t* sink) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  std::uint32_t sum = 0;
#pragma unroll 4
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint4 value = data[i];
    sum |= (value.x ^ value.y) & (value.z ^ value.w);
  }
  if (sum == 0x7fc12345U) *sink = sum;
}

__global__ void copy_kernel(const uint4* from, uint4* to, std::size_t count) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
#pragma unroll 4
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    to[i] = from[i];
  }
}

__device__ float warp_sum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0U, value, offset);
  return value;
}

__global__ void router_kernel(RouterCall call) {
  const int token = static_cast<int>(blockIdx.x * (kBlock / kWarp) + threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  if (token >= call.tokens) return;
  float score[kMostExpertsOfALane];
#pragma unroll
  for (int i = 0; i < kMostExpertsOfALane; ++i) {
    const int expert = i * kWarp + lane;
    score[i] = expert < call.experts ? call.logits[static_cast<std::size_t>(token) * call.experts + expert] : -1e30F;
  }
  float largest = 0;
  float total = 0;
  for (int choice = 0; choice < call.top_k; ++choice) {
    float best = -1e30F;
    int where = 0;
#pragma unroll
    for (int i = 0; i < kMostExpertsOfALane; ++i) {
      if (score[i] > best) {
        best = score[i];
        where = i * kWarp + lane;
      }
    }
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(~0U, best, offset);
      const int other_where = __shfl_xor_sync(~0U, where, offset);
      if (other > best || (other == best && other_where < where)) {
        best = other;
        where = other_where;
      }
    }
    if (choice == 0) {
      largest = best;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kMostExpertsOfALane; ++i) sum += __expf(score[i] - largest);
      total = warp_sum(sum);
    }
#pragma unroll
    for (int i = 0; i < kMostExpertsOfALane; ++i) {
      if (i * kWarp + lane == where) score[i] = -1e30F;
    }
    if (lane == 0) {
      call.weights[static_cast<std::size_t>(token) * call.top_k + choice] = __expf(best - largest) / total;
      call.chosen[static_cast<std::size_t>(token) * call.top_k + choice] = where;
    }
  }
}

/// A permutation of rows without a table: multiplication by a number without a common factor.
__device__ std::size_t scattered(std::size_t row, std::size_t rows) {
  return rows % 7919 == 0 ? row : row * 7919 % rows;
}

__global__ void permute_kernel(const Vector* input, Vector* output, std::size_t rows, int vectors, int top_k) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kBlock + threadIdx.x;
  const std::size_t copies = rows * top_k;
  if (i >= copies * vectors) return;
  const std::size_t row = scattered(i / vectors, copies);
  output[i] = input[row / top_k * vectors + i % vectors];
}

__global__ void unpermute_kernel(const Vector* input, Vector* output, std::size_t rows, int vectors, int top_k) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= rows * vectors) return;
  const std::size_t row = i / vectors;
  float sum[kVector] = {};
  for (int j = 0; j < top_k; ++j) {
    const Vector part = input[scattered(row * top_k + j, rows * top_k) * vectors + i % vectors];
#pragma unroll
    for (int v = 0; v < kVector; ++v) sum[v] += __bfloat162float(part.value[v]);
  }
  Vector result;
#pragma unroll
  for (int v = 0; v < kVector; ++v) result.value[v] = __float2bfloat16(sum[v] / static_cast<float>(top_k));
  output[i] = result;
}

__global__ void activation_kernel(const Vector* input, Vector* output, std::size_t rows, int vectors, bool gated) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= rows * vectors) return;
  const std::size_t at = gated ? i / vectors * 2 * vectors + i % vectors : i;
  const Vector gate = input[at];
  const Vector up = gated ? input[at + vectors] : gate;
  Vector result;
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    const float x = __bfloat162float(gate.value[v]);
    const float silu = x / (1 + __expf(-x));
    result.value[v] = __float2bfloat16(gated ? silu * __bfloat162float(up.value[v]) : silu);
  }
  output[i] = result;
}

__global__ void norm_kernel(const Vector* input, Vector* output, int vectors) {
  __shared__ float sums[kBlock / kWarp];
  const Vector* row = input + static_cast<std::size_t>(blockIdx.x) * vectors;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < vectors; i += kBlock) {
    const Vector part = row[i];
#pragma unroll
    for (int v = 0; v < kVector; ++v) sum += __bfloat162float(part.value[v]) * __bfloat162float(part.value[v]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = 0;
  for (const float part : sums) sum += part;
  const float scale = rsqrtf(sum / static_cast<float>(vectors * kVector) + 1e-6F);
  for (int i = static_cast<int>(threadIdx.x); i < vectors; i += kBlock) {
    Vector part = row[i];
#pragma unroll
    for (int v = 0; v < kVector; ++v) part.value[v] = __float2bfloat16(__bfloat162float(part.value[v]) * scale);
    output[static_cast<std::size_t>(blockIdx.x) * vectors + i] = part;
  }
}

__global__ void add_kernel(const Vector* a, const Vector* b, Vector* output, std::size_t count) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= count) return;
  const Vector left = a[i];
  const Vector right = b[i];
  Vector result;
#pragma unroll
  for (int v = 0; v < kVector; ++v) {
    result.value[v] = __float2bfloat16(__bfloat162float(left.value[v]) + __bfloat162float(right.value[v]));
  }
  output[i] = result;
}

/// Enough blocks to fill the device several times, no more than there is work.
int streaming_blocks(std::size_t vectors, int multiprocessors) {
  const int wanted = blocks_for((vectors + 3) / 4);
  return wanted < 8 * multiprocessors ? wanted : 8 * multiprocessors;
}

std::size_t vectors_of(const RowCall& call) { return static_cast<std::size_t>(call.rows) * (call.width / kVector); }

const Vector* in(const RowCall& call) { return static_cast<const Vector*>(call.input); }
Vector* out(const RowCall& call) { return static_cast<Vector*>(call.output); }

}  // namespace

void fill_random(void* data, std::size_t bytes, std::uint32_t seed, cudaStream_t stream) {
  fill_kernel<<<4096, kBlock, 0, stream>>>(static_cast<__nv_bfloat16*>(data), bytes / 2, seed);
}

void empty(cudaStream_t stream) { empty_kernel<<<1, kWarp, 0, stream>>>(); }

void wait(double seconds, cudaStream_t stream) {
  wait_kernel<<<1, 1, 0, stream>>>(static_cast<std::uint64_t>((seconds < 4 ? seconds : 4) * 1e9));
}

void read(const void* data, std::size_t bytes, std::uint32_t* sink, int multiprocessors, cudaStream_t stream) {
  const std::size_t count = bytes / sizeof(uint4);
  read_kernel<<<streaming_blocks(count, multiprocessors), kBlock, 0, stream>>>(static_cast<const uint4*>(data), count,
                                                                               sink);
}

void copy(const void* from, void* to, std::size_t bytes, int multiprocessors, cudaStream_t stream) {
  const std::size_t count = bytes / sizeof(uint4);
  copy_kernel<<<streaming_blocks(count, multiprocessors), kBlock, 0, stream>>>(static_cast<const uint4*>(from),
                                                                               static_cast<uint4*>(to), count);
}

void router(const RouterCall& call, cudaStream_t stream) {
  constexpr int kTokensOfABlock = kBlock / kWarp;
  router_kernel<<<(call.tokens + kTokensOfABlock - 1) / kTokensOfABlock, kBlock, 0, stream>>>(call);
}

void permute(const RowCall& call, int top_k, cudaStream_t stream) {
  permute_kernel<<<blocks_for(vectors_of(call) * top_k), kBlock, 0, stream>>>(
      in(call), out(call), static_cast<std::size_t>(call.rows), call.width / kVector, top_k);
}

void unpermute(const RowCall& call, int top_k, cudaStream_t stream) {
  unpermute_kernel<<<blocks_for(vectors_of(call)), kBlock, 0, stream>>>(
      in(call), out(call), static_cast<std::size_t>(call.rows), call.width / kVector, top_k);
}

void activation(const RowCall& call, bool gated, cudaStream_t stream) {
  activation_kernel<<<blocks_for(vectors_of(call)), kBlock, 0, stream>>>(
      in(call), out(call), static_cast<std::size_t>(call.rows), call.width / kVector, gated);
}

void norm(const RowCall& call, cudaStream_t stream) {
  norm_kernel<<<call.rows, kBlock, 0, stream>>>(in(call), out(call), call.width / kVector);
}

void add(const RowCall& call, const void* other, cudaStream_t stream) {
  add_kernel<<<blocks_for(vectors_of(call)), kBlock, 0, stream>>>(in(call), static_cast<const Vector*>(other),
                                                                  out(call), vectors_of(call));
}

}  // namespace moecast::gpu
