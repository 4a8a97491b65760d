#pragma once
#include <string>
#include <vector>

#include "sim/predictor.h"

namespace moecast {

/// What a rank computes of a step beside its MoE layers: attention, norms, dense layers, head, and the engine's host.
/// Equal on all ranks.
struct StepAround {
  double before_s = 0;   ///< of one batch, in front of each MoE layer
  double outside_s = 0;  ///< of the step: layers without experts, head, launches
  double launch_s = 0;   ///< part of outside_s
  double log_low = 0;    ///< least 90 % interval of ln(step): what holds for deployments that were not seen; at most 0
  double log_high = 0;
  Factors factors;                      ///< of all of it
  std::vector<OperatorCost> operators;  ///< of all batches
  std::string missing;                  ///< not empty: why nothing is known of it
};

/// Asks the analytic engine for the step of the model without its MoE blocks, and for the host's share in that of the
/// whole model.
/// @param deployment  with dp filled in. @param batches  into which the step is split. @param moe_layers  of the
/// decoder.
StepAround step_around(const Predictor& analytic, const Architecture& architecture, const Deployment& deployment,
                       const Workload& workload, int batches, int moe_layers);

}  // namespace moecast
