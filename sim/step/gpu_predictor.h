#pragma once
#include <memory>
#include <string>

#include "sim/predictor.h"

namespace moecast {

/// Said of steps that replay no graph.
inline constexpr const char* kEagerNote =
    "eager: only prompts were measured so; a kernel of a decode step takes the host as long to launch as one of a "
    "prompt";

/// Whole steps on a GPU: what a serving engine executes, from the machine's calibrated kernels and the engine's host.
///
/// Deployment::backend names the engine ("vllm", "vllm-0.24.0"). Workload::load says how popular experts are.
/// @param folder  of a profile with kernels.bin. @param engines  folder of the engines' descriptions.
/// @throws InputError when a file cannot be read.
std::unique_ptr<Predictor> load_gpu_predictor(const std::string& folder, const std::string& engines);

/// Experts lie on the ranks that attention lies on: with nothing said of these, each has a copy of it.
Deployment with_attention_replicas(Deployment deployment);

}  // namespace moecast
