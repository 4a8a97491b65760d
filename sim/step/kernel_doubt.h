#pragma once
#include <string>
#include <vector>

#include "sim/cost/kernel/ready_kernel.h"
#include "sim/step/step_operators.h"

namespace moecast {

/// Rows, tokens or keys of a usual step, at which a configuration is asked how well it is known.
inline constexpr double kUsualRows = 64;

/// Widens an operator, and says so, where its kernel is asked far from every configuration that was measured: what its
/// own interval holds beyond that of the operator's group.
/// @param usual  the kernel's row at a usual size of a step.
void doubt_far_kernel(const ReadyKernelData& kernel, const KernelRowValues& usual, StepOperator& op,
                      std::vector<std::string>& notes);

/// Half width of ln seconds where the kernel is one of another format: formats next to each other take up to twice as
/// long, by bytes and by rates alike.
inline constexpr double kOtherFormat = 0.69;

/// Notes in an operator that a kernel of another format stands for its own.
void doubt_stand_in(StepOperator& op);

}  // namespace moecast
