#pragma once
#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "sim/predictor.h"

namespace moecast {

/// A training step on GPUs: status, latency by phase, operators; memory and parameters are left to the caller.
///
/// With pipeline stages the micro-batches of gradient accumulation pass all stages, forward and backward (1F1B): m of
/// them on p equal stages take m + p - 1 times what one takes on a stage, and two transfers a micro-batch between
/// neighbours, one each way. Then the slowest stage reduces its gradients and updates its weights. The operators are
/// those of the slowest stage, and the phases forward, recompute and backward have their shares of the waiting in them.
/// What the two ends of a pipeline exchange of tied embeddings is not counted.
/// @throws InputError as build_graph and training_stage.
Prediction predict_training_step(const KernelCalibration& kernels, const Architecture& architecture,
                                 const Deployment& deployment, const Workload& workload, const Without& without);

}  // namespace moecast
