#pragma once
#include <vector>

#include "hwprofiles/measurement.h"

namespace moecast {

/// Backends of GPU points: "cublas" (gemm; fp32 without TF32), "cublas-tf32" (gemm, dtype fp32, TF32 allowed),
/// "cublas-loop" and "cublas-grouped" (fused_moe: one GEMM call an expert, or one grouped call), "cuda" (own kernels of
/// router, permute, unpermute, activation, norm, elementwise, copy, read and the empty call),
/// "cuda-pinned" (weight_transfer: pinned host memory to the device).
inline constexpr const char* kGpuGemmBackend = "cublas";
inline constexpr const char* kGpuTf32Backend = "cublas-tf32";
inline constexpr const char* kGpuLoopBackend = "cublas-loop";
inline constexpr const char* kGpuGroupedBackend = "cublas-grouped";
inline constexpr const char* kGpuKernelBackend = "cuda";
inline constexpr const char* kGpuPinnedBackend = "cuda-pinned";

/// Most copies of one ring: what a recorded graph of calls still holds without getting slow itself.
inline constexpr int kMostGpuCopies = 256;

struct GpuPlanOptions {
  double cold_ring_bytes = 1.5e9;   ///< far beyond any L2 cache (H100: 50 MB, B200: 126 MB)
  double most_call_seconds = 8e-3;  ///< of one call by the rates below; longer calls are left out
  double bf16_flops_per_s = 5e14;   ///< rough, only for the limit above
  double fp32_flops_per_s = 4e13;
  double memory_bytes = 60e9;  ///< what weights of one point may take
};

/// Bytes that one call reads and does not share with the next: weights of a gemm or fused_moe, input and output of the
/// own kernels; 0 for `call`.
double gpu_copy_bytes(const KernelPoint& point);

/// Copies in a point's ring, 1 to kMostGpuCopies.
int gpu_copies(const KernelPoint& point);

/// Every point, the most important kinds first. GEMM rows 1-8192 over (n, k) of Mixtral, DeepSeek-V3, Qwen3-MoE,
/// gpt-oss and OLMoE blocks, warm and cold; whole expert blocks of the same models; own kernels over their ranges.
std::vector<KernelPoint> gpu_points(const GpuPlanOptions& options);

}  // namespace moecast
