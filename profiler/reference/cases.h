#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"
#include "profiler/cpu/plan.h"

namespace moecast {

/// A MoE layer or small model that was not profiled, to be executed and predicted.
struct ValidationCase {
  std::string stratum;  ///< "onednn fp32, 1 thread", "2 threads", "per-expert-loop", "transformers", ...
  Architecture architecture;
  Deployment deployment;
  Workload workload;  ///< load and copies set; the rows come from the execution
};

struct CaseOptions {
  int cases = 40;  ///< in all, dealt out to the strata in turn
  std::uint64_t seed = 1;
  std::vector<KernelSetting> combinations;  ///< what was profiled
  bool strategies = true;                   ///< also the loop, padded and mask strategies
  bool transformers = true;                 ///< also models of 4 to 12 layers, prefill and decode
  double most_weight_bytes = 1.2e9;
  double most_flops = 20e9;
};

/// Hidden 256-4096, intermediate 128-8192 (steps of 64 and 32, 30 % powers of two), 4-64 experts, top-k 1-8, 1-2048
/// tokens in three equal bands, 70 % gated, Zipf 0-1.5, capacity from 0.5 to none, 1-16 copies. Deterministic by seed.
std::vector<ValidationCase> draw_cases(const CaseOptions& options);

/// Name of the stratum of a combination: "onednn fp32, 1 thread"; all of more threads share "N threads".
std::string setting_stratum(const KernelSetting& combination);

}  // namespace moecast
