#pragma once
#include <memory>

#include "models/plan/deployment.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "sim/step/placed_experts.h"
#include "sim/step/step_operators.h"

namespace moecast {

/// MoE layers that are alike, as what carries their rows sees them.
struct RoutedLayers {
  double count = 1;
  double hidden = 0;  ///< width of what is routed
  double experts = 0;
  double top_k = 1;
  std::shared_ptr<const PlacedExperts> placed = nullptr;  ///< required by DeepEP's exchange
};

/// Adds dispatch and combine of DeepEP: low latency (a copy a chosen expert) in steps that only generate, normal mode
/// (a copy a rank, between nodes one a node) in steps with prompts. The fullest rank decides, of
/// normal mode between nodes the fullest node.
/// @return false, nothing added, where the machine holds no such kernel.
bool add_deepep_exchange(const RoutedLayers& layers, const Deployment& deployment, const KernelCalibration& calibration,
                         StepOperators& operators);

/// Attention of every rank by itself and experts over all ranks of several whole nodes: what DeepEP is for.
bool is_wide_expert_parallelism(const Deployment& deployment, int node_devices);

}  // namespace moecast
