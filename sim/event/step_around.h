#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "sim/predictor.h"

namespace moecast {

/// What a rank computes of a step beside its MoE layers: attention, norms, dense layers, head, and the engine's host.
/// Equal on all ranks.
struct StepAround {
  double before_s = 0;    ///< of one batch, in front of each MoE layer
  double outside_s = 0;   ///< of the step: layers without experts, head
  double prepared_s = 0;  ///< of the step: the host prepares it, and gaps between kernels
  /// In which the host launches the whole step, ahead of the device: it ends no earlier than prepared_s + launched_s.
  /// 0: kernels take longer, by the analytic engine.
  double launched_s = 0;
  double log_low = 0;  ///< least 90 % interval of ln(step): what holds for deployments that were not seen; at most 0
  double log_high = 0;
  Factors factors;                      ///< of all of it
  std::vector<OperatorCost> operators;  ///< of all batches
  std::vector<std::string> warnings;    ///< of the analytic engine about its step
  std::string missing;                  ///< not empty: why nothing is known of it
};

/// A step whose kernels and exchanges take so long on the device.
inline double step_seconds(const StepAround& around, double device_s) {
  return around.prepared_s + std::max(device_s, around.launched_s);
}

/// Asks the analytic engine for the step of the model without its MoE blocks, and for the host's share in that of the
/// whole model.
/// @param deployment  with dp filled in. @param batches  into which the step is split. @param moe_layers  of the
/// decoder.
StepAround step_around(const Predictor& analytic, const Architecture& architecture, const Deployment& deployment,
                       const Workload& workload, int batches, int moe_layers);

}  // namespace moecast
