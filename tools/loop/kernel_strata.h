#pragma once
#include "hwprofiles/kernel_samples.h"
#include "sim/cost/kernel/kernel_law.h"
#include "tools/loop/strata.h"

namespace moecast {

/// Adds a predicted row of a table to every stratum that it belongs to: all, format, kernel, load, size, ranks, shape.
void add_kernel_outcome(const KernelSamples& samples, std::size_t row, const KernelLaw& law, const Outcome& outcome,
                        Strata& strata);

}  // namespace moecast
