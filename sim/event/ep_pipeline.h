#pragma once
#include "sim/event/ep_study.h"

namespace moecast {

/// A step on pipeline stages: MoE layers of every stage over routings of its own, micro-batches pass the stages as in
/// the closed form (pipeline_times), and what stages hand on takes what that says. One prediction a sample: generation
/// takes the period, prompts the time until the last micro-batch is out. Stages after the first count one reduction of
/// the embedding too many where attention is cut.
/// @param overlaps  the engine overlaps two batches where that is faster. @param analytic  of the same machine; not
/// null.
/// @throws InputError as plan_ep, for a lone layer, and for what is of one stage: fetched experts, recorded routings,
/// series of orders, slow links.
Prediction predict_ep_pipeline(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                               const Deployment& deployment, const Workload& workload, const EpOptions& options,
                               bool overlaps, const Predictor* analytic);

}  // namespace moecast
