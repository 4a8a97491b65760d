#include "profiler/cuda/plan.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace moecast {
namespace {

struct GemmWidths {
  std::int64_t n;
  std::int64_t k;
};

/// Outputs and inputs of real projections: Mixtral 8x7B (first three), DeepSeek-V3 (experts, dense, latent),
/// Qwen3-30B-A3B, gpt-oss-20b, OLMoE, then routers (n = experts), a vocabulary slice and squares that show the peak.
constexpr std::array kWidths{
    GemmWidths{28672, 4096}, GemmWidths{4096, 14336}, GemmWidths{6144, 4096}, GemmWidths{4096, 7168},
    GemmWidths{7168, 2048},  GemmWidths{36864, 7168}, GemmWidths{1536, 7168}, GemmWidths{1536, 2048},
    GemmWidths{2048, 768},   GemmWidths{5760, 2880},  GemmWidths{2880, 2880}, GemmWidths{2048, 2048},
    GemmWidths{2048, 1024},  GemmWidths{8, 4096},     GemmWidths{256, 7168},  GemmWidths{64, 2048},
    GemmWidths{16384, 4096}, GemmWidths{8192, 8192},  GemmWidths{512, 512}};

constexpr std::array<std::int64_t, 27> kRows{1,   2,   3,   4,   6,   8,   12,  16,  24,   32,   48,   64,   80,  96,
                                             112, 128, 160, 192, 256, 384, 512, 768, 1024, 2048, 3072, 4096, 8192};

struct ExpertBlock {
  std::int64_t experts;
  std::int64_t top_k;
  std::int64_t hidden;
  std::int64_t width;
};

/// Mixtral 8x7B, DeepSeek-V3 on 8 ranks (32 of 256 experts), Qwen3-30B-A3B, gpt-oss-20b, OLMoE.
constexpr std::array kBlocks{ExpertBlock{8, 2, 4096, 14336}, ExpertBlock{32, 8, 7168, 2048},
                             ExpertBlock{128, 8, 2048, 768}, ExpertBlock{32, 4, 2880, 2880},
                             ExpertBlock{64, 8, 2048, 1024}};

constexpr std::array<std::int64_t, 9> kTokens{1, 4, 16, 64, 256, 1024, 2048, 4096, 8192};

class PointList {
 public:
  explicit PointList(const GpuPlanOptions& options) : options_(options) {}

  /// Keeps a point whose call is short enough and fits; cold points get a whole number of copies.
  void add(OperatorKind kind, const char* backend, DType dtype, const OperatorShape& shape, double ring, double flops) {
    KernelPoint point;
    point.kind = kind;
    point.backend = backend;
    point.dtype = dtype;
    point.shape = shape;
    const double rate = dtype == DType::fp32 ? options_.fp32_flops_per_s : options_.bf16_flops_per_s;
    const double copy = gpu_copy_bytes(point);
    if (flops / rate > options_.most_call_seconds || copy > options_.memory_bytes) return;
    if (ring > 0 && copy > 0) {
      const double copies = std::clamp(std::floor(ring / copy), 1.0, static_cast<double>(kMostGpuCopies));
      point.footprint = Bytes(copies * copy);
    }
    points_.push_back(point);
  }
  [[nodiscard]] std::vector<KernelPoint> take() { return std::move(points_); }
  [[nodiscard]] const GpuPlanOptions& options() const { return options_; }

 private:
  GpuPlanOptions options_;
  std::vector<KernelPoint> points_;
};

void add_gemms(PointList& list, const char* backend, DType dtype, std::size_t every) {
  for (std::size_t r = 0; r < kRows.size(); r += every) {
    for (const GemmWidths& widths : kWidths) {
      OperatorShape shape;
      shape.m = kRows[r];
      shape.n = widths.n;
      shape.k = widths.k;
      const double flops =
          2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
      list.add(OperatorKind::gemm, backend, dtype, shape, list.options().cold_ring_bytes, flops);
      if (shape.n * shape.k <= 2048 * 4096 && r % 2 == 0) list.add(OperatorKind::gemm, backend, dtype, shape, 0, flops);
    }
  }
}

void add_expert_blocks(PointList& list) {
  for (const ExpertBlock& block : kBlocks) {
    for (const std::int64_t tokens : kTokens) {
      OperatorShape shape;
      shape.tokens = tokens;
      shape.experts = block.experts;
      shape.top_k = block.top_k;
      shape.hidden = block.hidden;
      shape.width = block.width;
      shape.gated = 1;
      const double flops =
          6.0 * static_cast<double>(tokens * block.top_k) * static_cast<double>(block.hidden * block.width);
      for (const char* backend : {kGpuLoopBackend, kGpuGroupedBackend}) {
        list.add(OperatorKind::fused_moe, backend, DType::bf16, shape, list.options().cold_ring_bytes, flops);
      }
    }
  }
}

/// The own kernels move bytes only: every shape warm and cold.
void add_kernel(PointList& list, OperatorKind kind, const OperatorShape& shape) {
  list.add(kind, kGpuKernelBackend, DType::bf16, shape, 0, 0);
  list.add(kind, kGpuKernelBackend, DType::bf16, shape, list.options().cold_ring_bytes, 0);
}

void add_row_kernels(PointList& list, std::int64_t tokens, std::int64_t hidden) {
  OperatorShape rows;
  rows.m = tokens;
  rows.hidden = hidden;
  add_kernel(list, OperatorKind::norm, rows);
  OperatorShape wide;
  wide.m = tokens;
  wide.width = hidden;
  add_kernel(list, OperatorKind::elementwise, wide);
  for (const std::int64_t gated : {0, 1}) {
    wide.gated = gated;
    add_kernel(list, OperatorKind::activation, wide);
  }
  for (const std::int64_t top_k : {1, 2, 8}) {
    OperatorShape routed;
    routed.tokens = tokens;
    routed.top_k = top_k;
    routed.hidden = hidden;
    add_kernel(list, OperatorKind::permute, routed);
    add_kernel(list, OperatorKind::unpermute, routed);
  }
}

void add_routers(PointList& list, std::int64_t tokens) {
  for (const std::int64_t experts : {8, 32, 64, 128, 256}) {
    for (const std::int64_t top_k : {1, 2, 4, 8}) {
      if (top_k > experts / 2) continue;
      OperatorShape shape;
      shape.tokens = tokens;
      shape.experts = experts;
      shape.top_k = top_k;
      shape.groups = 1;
      list.add(OperatorKind::router, kGpuKernelBackend, DType::fp32, shape, 0, 0);
    }
  }
}

/// Bandwidth by working set: one buffer of each size, used over and over, so its size is its footprint.
void add_bandwidth_curve(PointList& list) {
  for (double bytes = 65536; bytes <= 8.6e9; bytes *= std::sqrt(2.0)) {
    OperatorShape shape;
    shape.bytes = std::llround(bytes / 4096) * 4096;
    for (const OperatorKind kind : {OperatorKind::read, OperatorKind::copy}) {
      list.add(kind, kGpuKernelBackend, DType::bf16, shape, 0, 0);
    }
  }
  for (std::int64_t bytes = 4096; bytes <= std::int64_t{256} << 20; bytes *= 4) {
    OperatorShape shape;
    shape.bytes = bytes;
    list.add(OperatorKind::weight_transfer, kGpuPinnedBackend, DType::bf16, shape, 0, 0);
  }
}

}  // namespace

double gpu_copy_bytes(const KernelPoint& point) {
  const OperatorShape& s = point.shape;
  const auto product = [](auto... value) { return (1.0 * ... * static_cast<double>(value)); };
  const double element = bytes_per_element(point.dtype);
  switch (point.kind) {
    case OperatorKind::gemm: return product(s.n, s.k) * bytes_per_weight(point.dtype);
    case OperatorKind::fused_moe:
      return product(s.experts, s.hidden, s.width, s.gated == 1 ? 3 : 2) * bytes_per_weight(point.dtype);
    case OperatorKind::router: return product(s.tokens, s.experts) * sizeof(float) + product(s.tokens, s.top_k) * 8;
    case OperatorKind::permute:
    case OperatorKind::unpermute: return product(s.tokens, s.top_k + 1, s.hidden) * element;
    case OperatorKind::activation: return product(s.m, s.width, s.gated == 1 ? 3 : 2) * element;
    case OperatorKind::norm: return product(s.m, s.hidden, 2) * element;
    case OperatorKind::elementwise: return product(s.m, s.width, 3) * element;
    case OperatorKind::copy: return product(s.bytes, 2);
    case OperatorKind::read: return product(s.bytes);
    default: return 0;
  }
}

int gpu_copies(const KernelPoint& point) {
  const double copy = gpu_copy_bytes(point);
  if (copy <= 0 || point.footprint.value() <= copy) return 1;
  return static_cast<int>(std::min(std::round(point.footprint.value() / copy), static_cast<double>(kMostGpuCopies)));
}

std::vector<KernelPoint> gpu_points(const GpuPlanOptions& options) {
  PointList list(options);
  list.add(OperatorKind::call, kGpuKernelBackend, DType::bf16, {}, 0, 0);
  add_bandwidth_curve(list);
  add_expert_blocks(list);
  add_gemms(list, kGpuGemmBackend, DType::bf16, 1);
  add_gemms(list, kGpuTf32Backend, DType::fp32, 3);
  add_gemms(list, kGpuGemmBackend, DType::fp32, 3);
  for (const std::int64_t tokens : kTokens) {
    for (const std::int64_t hidden : {768, 2048, 4096, 7168}) add_row_kernels(list, tokens, hidden);
    add_routers(list, tokens);
  }
  return list.take();
}

}  // namespace moecast
