#pragma once
#include <algorithm>

#include "sim/cost/kernel/kernel_law.h"
#include "sim/step/step_operators.h"

namespace moecast {

/// What a kernel without a table reaches of the datasheet.
struct UsualEfficiency {
  double bandwidth = 0.7;
  double peak = 0.5;  ///< of bf16
  double start_s = 10e-6;
  double spread = 0;  ///< half width of ln(seconds) that holds 90 % of measured kernels of the kind

  [[nodiscard]] double seconds(const StepWork& work, const DeviceLimits& device) const {
    if (work.bytes == 0 && work.flops == 0) return 0;
    return start_s + std::max(work.bytes / (bandwidth * device.bandwidth), work.flops / (peak * device.peak_bf16));
  }
};

/// Kernels of unknown kind: 90 % of prompts' attention lie within this factor of the usual efficiencies.
inline constexpr UsualEfficiency kUnknownKernel{0.7, 0.5, 10e-6, 1.07};

}  // namespace moecast
