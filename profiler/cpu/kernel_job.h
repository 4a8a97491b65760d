#pragma once
#include <memory>

#include "hwprofiles/measurement.h"
#include "profiler/cpu/buffers.h"
#include "profiler/timing/session.h"

namespace moecast {

/// A job that times one kernel at a point, on weights and inputs that come from rings of the point's footprints.
///
/// gemm: weights from a ring of `footprint`, input rows from a ring of `input_footprint`. router: scores and top-k of
/// planted logits. permute, unpermute, activation, norm, elementwise, copy, read: input and output from rings whose
/// sizes are shares of `footprint`. attention_*: the KV cache from a ring of `footprint`. call: the smallest GEMM.
/// fused_moe: the experts of a layer over a ragged histogram, see grouped_ffn.h.
/// @throws InputError for a kind that is no CPU kernel or a shape below 1; DeviceError as make_gemm.
std::unique_ptr<Job> make_kernel_job(const KernelPoint& point, const KernelBuffers& buffers);

}  // namespace moecast
