#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "models/core/error.h"
#include "models/routing/load.h"
#include "profiler/cuda/kernels.cuh"
#include "profiler/cuda/launches.cuh"
#include "profiler/cuda/plan.h"

namespace moecast::gpu {
namespace {

constexpr std::uint64_t kRoutingSeed = 1;

GpuMath math_of(const KernelPoint& point) {
  if (point.dtype == DType::bf16) return GpuMath::bf16;
  return point.backend == kGpuTf32Backend ? GpuMath::tf32 : GpuMath::fp32;
}

Launch gemm_launch(const KernelPoint& point, const LaunchContext& context) {
  const auto stride = static_cast<std::size_t>(gpu_copy_bytes(point));
  return [point, context, stride](int copy) {
    const Buffers& b = *context.buffers;
    context.cublas->gemm(
        {point.shape.m, point.shape.n, point.shape.k, b.input.data(), b.ring.data() + stride * copy, b.output.data()},
        math_of(point));
  };
}

/// The GEMMs of one expert block on one copy of its weights: [gate and up] into `middle`, [down] into `output`.
struct BlockCalls {
  std::vector<GpuGemm> up;
  std::vector<GpuGemm> down;
};

BlockCalls block_calls(const OperatorShape& s, const Buffers& b, const char* weights) {
  constexpr std::size_t kElement = 2;
  const std::int64_t widths = s.gated == 1 ? 2 * s.width : s.width;
  const auto expert_bytes = static_cast<std::size_t>((widths + s.width) * s.hidden) * kElement;
  BlockCalls calls;
  std::size_t row = 0;
  std::size_t expert = 0;
  for (const std::int64_t rows : expert_rows(s)) {
    const char* w = weights + expert_bytes * expert++;
    calls.up.push_back({rows, widths, s.hidden, b.input.data() + row * s.hidden * kElement, w,
                        b.middle.data() + row * widths * kElement});
    calls.down.push_back({rows, s.hidden, s.width, b.activated.data() + row * s.width * kElement,
                          w + static_cast<std::size_t>(widths * s.hidden) * kElement,
                          b.output.data() + row * s.hidden * kElement});
    row += rows;
  }
  return calls;
}

void launch_activation(const OperatorShape& s, const LaunchContext& context) {
  activation({context.buffers->middle.data(), context.buffers->activated.data(), static_cast<int>(s.tokens * s.top_k),
              static_cast<int>(s.width)},
             s.gated == 1, context.stream);
}

Launch loop_launch(const KernelPoint& point, int copies, const LaunchContext& context) {
  auto blocks = std::make_shared<std::vector<BlockCalls>>();
  const auto stride = static_cast<std::size_t>(gpu_copy_bytes(point));
  for (int i = 0; i < copies; ++i) {
    blocks->push_back(block_calls(point.shape, *context.buffers, context.buffers->ring.data() + stride * i));
  }
  return [point, context, blocks](int copy) {
    const BlockCalls& block = (*blocks)[copy];
    for (const GpuGemm& call : block.up) context.cublas->gemm(call, GpuMath::bf16);
    launch_activation(point.shape, context);
    for (const GpuGemm& call : block.down) context.cublas->gemm(call, GpuMath::bf16);
  };
}

/// The pointers of a list of GEMMs on the device: all w, then all x, then all y.
struct PointerTable {
  explicit PointerTable(const std::vector<GpuGemm>& calls) : count(calls.size()), memory(3 * count * sizeof(void*)) {
    std::vector<const void*> host(3 * count);
    for (std::size_t i = 0; i < count; ++i) {
      host[i] = calls[i].w;
      host[count + i] = calls[i].x;
      host[2 * count + i] = calls[i].y;
    }
    check(cudaMemcpy(memory.data(), host.data(), memory.size(), cudaMemcpyHostToDevice), "copying pointers");
  }
  [[nodiscard]] GroupedPointers pointers() const {
    auto** table = reinterpret_cast<void**>(memory.data());
    return {const_cast<const void* const*>(table), const_cast<const void* const*>(table + count), table + 2 * count};
  }
  std::size_t count;
  DeviceBuffer memory;
};

Launch grouped_launch(const KernelPoint& point, int copies, const LaunchContext& context) {
  struct Block {
    BlockCalls calls;
    PointerTable up;
    PointerTable down;
  };
  auto blocks = std::make_shared<std::vector<Block>>();
  const auto stride = static_cast<std::size_t>(gpu_copy_bytes(point));
  for (int i = 0; i < copies; ++i) {
    BlockCalls calls = block_calls(point.shape, *context.buffers, context.buffers->ring.data() + stride * i);
    PointerTable up(calls.up);
    PointerTable down(calls.down);
    blocks->push_back({std::move(calls), std::move(up), std::move(down)});
  }
  return [point, context, blocks](int copy) {
    const Block& block = (*blocks)[copy];
    context.cublas->grouped(block.calls.up, block.up.pointers(), GpuMath::bf16);
    launch_activation(point.shape, context);
    context.cublas->grouped(block.calls.down, block.down.pointers(), GpuMath::bf16);
  };
}

Launch transfer_launch(const KernelPoint& point, const LaunchContext& context) {
  return [point, context](int) {
    check(cudaMemcpyAsync(context.buffers->ring.data(), context.buffers->pinned,
                          static_cast<std::size_t>(point.shape.bytes), cudaMemcpyHostToDevice, context.stream),
          "copying from the host");
  };
}

/// Own kernels: input, output and (elementwise) the second input lie one after the other in a copy.
Launch kernel_launch(const KernelPoint& point, const LaunchContext& context) {
  const auto stride = static_cast<std::size_t>(gpu_copy_bytes(point));
  return [point, context, stride](int copy) {
    const OperatorShape& s = point.shape;
    const cudaStream_t stream = context.stream;
    char* at = context.buffers->ring.data() + stride * copy;
    const auto rows_of = [at](std::int64_t rows, std::int64_t width, std::int64_t input_elements) {
      return RowCall{at, at + 2 * input_elements, static_cast<int>(rows), static_cast<int>(width)};
    };
    switch (point.kind) {
      case OperatorKind::call: return empty(stream);
      case OperatorKind::read:
        return read(at, stride, reinterpret_cast<std::uint32_t*>(context.buffers->output.data()),
                    context.multiprocessors, stream);
      case OperatorKind::copy:
        return gpu::copy(at, at + s.bytes, static_cast<std::size_t>(s.bytes), context.multiprocessors, stream);
      case OperatorKind::router: {
        auto* weights = reinterpret_cast<float*>(at + s.tokens * s.experts * 4);
        return router(
            {reinterpret_cast<const float*>(at), weights, reinterpret_cast<std::int32_t*>(weights + s.tokens * s.top_k),
             static_cast<int>(s.tokens), static_cast<int>(s.experts), static_cast<int>(s.top_k)},
            stream);
      }
      case OperatorKind::permute:
        return permute(rows_of(s.tokens, s.hidden, s.tokens * s.hidden), static_cast<int>(s.top_k), stream);
      case OperatorKind::unpermute:
        return unpermute(rows_of(s.tokens, s.hidden, s.tokens * s.top_k * s.hidden), static_cast<int>(s.top_k), stream);
      case OperatorKind::activation:
        return activation(rows_of(s.m, s.width, s.m * s.width * (s.gated + 1)), s.gated == 1, stream);
      case OperatorKind::norm: return norm(rows_of(s.m, s.hidden, s.m * s.hidden), stream);
      case OperatorKind::elementwise:
        return add(rows_of(s.m, s.width, 2 * s.m * s.width), at + 2 * s.m * s.width, stream);
      default: throw DeviceError("", "there is no GPU kernel of " + std::string(to_string(point.kind)));
    }
  };
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw DeviceError("", std::string(what) + ": " + cudaGetErrorString(status));
}

DeviceBuffer::DeviceBuffer(std::size_t bytes) : size_(bytes) {
  check(cudaMalloc(reinterpret_cast<void**>(&data_), bytes), "allocating device memory");
}
DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}
DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

Needs needs_of(const KernelPoint& point) {
  const OperatorShape& s = point.shape;
  const double element = bytes_per_element(point.dtype);
  const auto bytes = [element](std::int64_t rows, std::int64_t width) {
    return static_cast<double>(rows) * static_cast<double>(width) * element;
  };
  Needs needs;
  needs.ring = std::max(point.footprint.value(), gpu_copy_bytes(point));
  if (point.kind == OperatorKind::gemm) {
    needs.input = bytes(s.m, s.k);
    needs.output = bytes(s.m, s.n);
  } else if (point.kind == OperatorKind::fused_moe) {
    needs.input = needs.output = bytes(s.tokens * s.top_k, s.hidden);
    needs.middle = bytes(s.tokens * s.top_k, s.width * (s.gated + 1));
  }
  return needs;
}

std::vector<std::int64_t> expert_rows(const OperatorShape& shape) {
  auto rows =
      sample_rows(expert_popularity({}, shape.experts), shape.tokens, static_cast<int>(shape.top_k), kRoutingSeed);
  std::erase(rows, 0);
  return rows;
}

Launch make_launch(const KernelPoint& point, int copies, const LaunchContext& context) {
  if (point.kind == OperatorKind::gemm) return gemm_launch(point, context);
  if (point.kind == OperatorKind::weight_transfer) return transfer_launch(point, context);
  if (point.kind != OperatorKind::fused_moe) return kernel_launch(point, context);
  return point.backend == kGpuGroupedBackend ? grouped_launch(point, copies, context)
                                             : loop_launch(point, copies, context);
}

}  // namespace moecast::gpu
