#pragma once
#include <cstdint>
#include <vector>

#include "hwprofiles/profile.h"
#include "models/plan/workload.h"
#include "sim/predictor.h"
#include "sim/step/step_pipeline.h"

namespace moecast {

/// Operators of the engine's host: what it does while the device stands still and gaps between kernels; and what the
/// device waits for where kernels end before the host has launched the next.
inline constexpr const char* kPreparation = "preparation and gaps between kernels";
inline constexpr const char* kLaunchWait = "waiting for launches";

/// What one rank takes for a step, or for a micro-batch of it on one pipeline stage.
struct StageAnswer {
  StepTimes times{};
  StepCost cost;
  double half_width = 0;  ///< of a 90 % interval of ln seconds, as if all kernels had been measured
  double assumed = 0;     ///< to be added to it: what operators of physics alone may be off
  double kernels_s = 0;
  double memory_s = 0;  ///< part of the kernels that waits for memory
  double communication_s = 0;
  double router_s = 0;
  double flops = 0;
  std::vector<OperatorCost> operators;
};

/// What is asked of each stage.
struct StageQuestion {
  const Workload& workload;
  const DeviceLimits& device;
  const Without& without;
  bool follows = false;  ///< a further pass of a step: launched like any, but the host prepares nothing for it
  bool fetches = false;  ///< experts come from the host, which has to see the router's choice before it can go on
};

/// The sequences of a rank, all of them together.
MicroBatch whole_batch(const StepModel& model, const Workload& workload);

/// @param even  the same with experts chosen alike, where their imbalance is to be removed; may be null.
/// @param lone  a layer by itself, replayed: no engine pads it, no host prepares it.
StageAnswer answer_stage(const StepModel& model, const StepModel* even, const MicroBatch& batch, bool lone,
                         const StageQuestion& question);

/// All stages and micro-batches of a step; the answer of the largest micro-batch on all stages is what is returned,
/// its cost the time of the step.
/// @param deployment  as asked for, with its micro-batches. @param layers  of the whole model.
StageAnswer answer_stages(const StepPipeline& pipeline, const StepPipeline* even, const Deployment& deployment,
                          std::size_t layers, const StageQuestion& question, PipelineReport& report);

/// One after the other; what errs, errs together.
void append(StageAnswer& all, const StageAnswer& more);

/// The same, so many times one after another.
void repeat(StageAnswer& answer, double times);

/// The weakest origin of what a step of so many seconds takes noticeably long for.
Origin step_origin(const std::vector<OperatorCost>& operators, double seconds);

}  // namespace moecast
