#pragma once
#include "sim/step/step_operators.h"

namespace moecast {

/// Kernels of a step by group, none beside another.
StepTimes times_one_after_the_other(const StepOperators& operators, const StepShape& shape);

/// Share of the shared experts' time that routed experts beside them do not hide; 1 where they run one after the other.
///
/// Two kernels at once share the memory: together they take at least as long as the longer of both, and as all their
/// bytes at the better of the bandwidths that each has alone.
/// @param times  of the step, one after the other.
double exposed_shared(const StepOperators& operators, const StepShape& shape, const StepTimes& times);

}  // namespace moecast
