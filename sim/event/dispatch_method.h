#pragma once
#include <optional>
#include <string_view>

#include "hwprofiles/cluster.h"
#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {

/// How tokens travel to their experts and back: DeepEP low latency (a copy a selected expert), DeepEP normal (a copy a
/// rank, between nodes one a node), one-sided writes inside one NVLink domain, or NCCL's all-to-all.
enum class DispatchMethod { low_latency, normal, one_sided, nccl };
std::string_view to_string(DispatchMethod method);
std::optional<DispatchMethod> find_dispatch_method(std::string_view name);
/// Whose tables hold the method.
std::string_view framework_of(DispatchMethod method);

/// Low latency up to 128 tokens a rank and normal above, inside one large NVLink domain one-sided, where the profile
/// holds it; else NCCL.
DispatchMethod usual_dispatch_method(const KernelCalibration& calibration, const Topology& topology,
                                     double tokens_per_rank);

}  // namespace moecast
