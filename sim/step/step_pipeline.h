#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sim/step/step_model.h"

namespace moecast {

/// What hands the rows of a stage on to the next one.
struct StageLink {
  std::string kernel;                          ///< what was measured for it; "physics" where nothing was
  double nodes = 1;                            ///< 2 where the two stages lie on different nodes
  std::function<double(double rows)> seconds;  ///< of so many rows of a rank
};

/// A model on the pipeline stages of a deployment: each stage a step model of its layers, the first with the embedding,
/// the last with the head. One stage: exactly the step model of the deployment.
struct StepPipeline {
  std::vector<StepModel> stages;      ///< at least one
  std::vector<std::size_t> equals{};  ///< of each stage: the first one that is as it
  std::vector<StageLink> links;       ///< from each stage to the next

  [[nodiscard]] const StepModel& front() const { return stages.front(); }
  /// Of all stages, each once.
  [[nodiscard]] std::vector<std::string> not_executed() const;
  [[nodiscard]] std::vector<std::string> notes() const;
};

/// @param deployment  pp stages of tp * dp * cp ranks each; its extra_layers is replaced by the engine's.
/// @param joins  the architecture is a module of multi-token prediction.
/// @throws InputError as make_step_operators, and at "pp" when a stage would have no layer.
StepPipeline make_step_pipeline(const Architecture& architecture, const Deployment& deployment,
                                const EngineSpec& engine, const KernelCalibration& calibration,
                                const StepRouting& routing = {}, bool joins = false);

/// What a rank does of a batch: sequences of each micro-batch, equal ones together.
struct MicroBatch {
  std::int64_t decodes = 0;           ///< sequences that get one token
  std::int64_t prompts = 0;           ///< sequences in prefill
  std::vector<std::size_t> places{};  ///< where it comes in the order of micro-batches
};

/// Deals the sequences of a rank to at most `count` micro-batches, as evenly as whole sequences allow: those with a
/// decode more come first, those with a prompt more last.
/// @param count  at least 1; no micro-batch stays empty.
std::vector<MicroBatch> split_batch(std::int64_t decodes, std::int64_t prompts, std::int64_t count);

}  // namespace moecast
