#pragma once
#include <span>

#include "hwprofiles/kernel_samples.h"
#include "sim/cost/kernel/kernel_law.h"

namespace moecast {

/// Seconds of a kernel that nobody measured on a machine: its law with the priors of its coefficients.
/// @param row  of the kernel's layout.
double unfitted_seconds(const KernelKey& key, const DeviceLimits& device, std::span<const double> row);

}  // namespace moecast
