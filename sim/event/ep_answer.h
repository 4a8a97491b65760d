#pragma once
#include <vector>

#include "sim/event/ep_study.h"

namespace moecast {

/// What a plan says of its step.
/// @param of_stage  not null: the plan is of a pipeline stage, whose memory was looked at with that of the others;
/// seconds of every sample come back in it.
Prediction predict_plan(const GpuMachine& machine, const Architecture& architecture, const EpPlan& plan,
                        const Workload& workload, EpOptions options, const Predictor* analytic,
                        std::vector<double>* of_stage = nullptr);

/// Mean and percentiles of steps; nothing of their routing.
StepDistribution distribution_of(const std::vector<double>& steps, const EpOptions& options);

/// One stage, or a whole model: plans it and says what the plan says; with `overlaps` of one batch or of two, whichever
/// is faster.
/// @param options  `batches` of the answer comes back in it. @param of_stage  as for predict_plan.
Prediction predict_ep_stage(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                            const Deployment& deployment, const Workload& workload, EpOptions& options, bool overlaps,
                            const Predictor* analytic, std::vector<double>* of_stage = nullptr);

}  // namespace moecast
