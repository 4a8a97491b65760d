#pragma once
#include <string>
#include <vector>

#include "profiler/cpu/plan.h"

namespace moecast {

/// What --backend, --dtype and --threads of the measuring commands mean: every combination that the backends support.
/// Empty text = the default: oneDNN and OpenBLAS; fp32, and bf16 where this CPU has it; one thread and all CPUs of this
/// process. @throws UsageError on an unknown word (nearest named), more threads than CPUs, or a dtype that none
/// computes.
std::vector<KernelSetting> parse_combinations(const std::string& backends, const std::string& dtypes,
                                              const std::string& threads);

}  // namespace moecast
