#pragma once
#include "sim/predictor.h"

namespace moecast {

/// Devices that a step occupies: all ranks of its stages, and of its replicas where it trains.
double devices_of(const Deployment& deployment, const Workload& workload);

/// Fills in Factors::expert_parallel_efficiency_ratio of an answer to a question with expert parallelism:
/// t(1) / (n t(n)), n the devices of the deployment, whatever mixture of degrees makes them. t(1) is the same batch on
/// one device, which need not have the memory for it. Costs one more closed-form step.
///
/// Where one device cannot be asked, a warning says why and the ratio stays unknown; where n devices are more than n
/// times as fast, another says so. Without a latency, or without expert parallelism, nothing changes.
/// @param predictor  closed form, of the machine that answered. @param deployment  as it was asked for.
/// @param without  removed from the answer, and so from t(1).
void rate_expert_parallelism(const Predictor& predictor, const Architecture& architecture, const Deployment& deployment,
                             const Workload& workload, const Without& without, Prediction& answer);

}  // namespace moecast
