#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "hwprofiles/measurement.h"
#include "profiler/cpu/buffers.h"
#include "profiler/timing/session.h"

namespace moecast {

/// Rows of every expert of a fused_moe point: one draw of its tokens and top-k from a Zipf load of exponent 0.8.
std::vector<std::int64_t> grouped_ffn_rows(const OperatorShape& shape);

/// The feed-forward networks of all experts of a layer over that ragged histogram, expert by expert: up (and gate),
/// activation, down. Weights come from a ring of the point's footprint.
std::unique_ptr<Job> make_grouped_ffn_job(const KernelPoint& point, const KernelBuffers& buffers);

}  // namespace moecast
