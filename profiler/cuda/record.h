#pragma once
#include <optional>
#include <string>

#include "hwprofiles/profile.h"
#include "profiler/cuda/device.h"
#include "profiler/cuda/session.h"

namespace moecast {

/// Published peaks of a GPU; dense arithmetic, without sparsity.
struct GpuDatasheet {
  std::string source;
  BytesPerSecond memory_bandwidth;
  FlopsPerSecond peak_bf16;
  FlopsPerSecond peak_fp8;
  FlopsPerSecond peak_fp32;
  FlopsPerSecond peak_tf32;
  BytesPerSecond link_bandwidth;  ///< NVLink, one direction
};

/// By the name that the driver gives; nullopt for a GPU that is not in the table (an H100 PCIe is no H100 SXM).
std::optional<GpuDatasheet> gpu_datasheet(const std::string& device_name);

/// "nvidia-h100-80gb-hbm3".
std::string gpu_profile_name(const GpuInfo& info);

/// Everything that is known about a GPU: what the driver says, the datasheet, and the best of what was measured
/// (bandwidths as a curve by working set: "read_bandwidth_65536_bytes").
///
/// @param created  ISO date, UTC. @param launch  nullptr when not measured.
Profile gpu_profile(const GpuInfo& info, const GpuSessionResult& result, const LaunchCosts* launch,
                    const std::string& created);

}  // namespace moecast
