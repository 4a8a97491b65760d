#pragma once
#include <string>
#include <vector>

#include "hwprofiles/profile.h"
#include "profiler/cpu/buffers.h"
#include "profiler/cpu/plan.h"
#include "profiler/reference/cases.h"

namespace moecast {

/// Everything about this machine and its backends that a profile says before anything is timed.
Profile describe_machine(const std::string& name, const std::vector<KernelSetting>& combinations);

/// How fast this machine is, roughly: enough to plan for a budget.
struct MachineSpeed {
  double flops_per_s = 1e11;    ///< of one thread, in a GEMM of the first combination
  double bytes_per_s = 1.2e10;  ///< of one thread, from memory
};

/// Two GEMMs, timed for some 0.1 s.
MachineSpeed measure_speed(const KernelSetting& combination, const KernelBuffers& buffers);

/// Seconds that a session of these points takes (samples and cache warming; primitive building is small beside them).
Seconds expected_time(const std::vector<KernelPoint>& points, int rounds, const MachineSpeed& speed);

/// Bytes of weights to set aside: all of KernelBuffers' 2 GiB, less where the whole budget is short.
std::size_t weight_buffer_bytes(Seconds budget);

struct SpreadPlan {
  PlanOptions options;
  int rounds;  ///< fewer than asked where the budget is short
};

/// As many initial points as fit into `budget`, in the proportions of PlanOptions.
/// @throws UsageError where not even the fewest that a calibration can be made of fit, saying what they take.
SpreadPlan plan_for(const std::vector<KernelSetting>& combinations, Seconds budget, int rounds, double most_ring_bytes,
                    const MachineSpeed& speed);

/// A few MoE layers of every combination, to measure what lies between the kernels, and some of the other strategies
/// and small transformers, to measure how far predictions stray. Other seeds than validation's. A slow machine gets
/// smaller ones, a short budget fewer.
std::vector<ValidationCase> closure_layers(const std::vector<KernelSetting>& combinations, const MachineSpeed& speed,
                                           Seconds budget, int rounds);

/// Writes what the samples say about the machine into Profile::quantities: memory bandwidth by threads, peaks, noise.
void summarise_machine(Profile& profile, const std::vector<Measurement>& measurements);

}  // namespace moecast
