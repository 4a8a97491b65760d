#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/memory.h"
#include "models/routing/load.h"
#include "sim/predictor.h"
#include "sim/step/service_simulation.h"
#include "sim/step/service_step_times.h"
#include "sim/step/step_pipeline.h"

namespace moecast {

/// What an instance is to serve.
struct ServedLoad {
  std::int64_t batched_tokens = kUsualBatchedTokens;  ///< of a step and rank
  std::int64_t sequences = 1024;                      ///< in the batch of a rank
  std::int64_t longest = 2048;                        ///< tokens of the longest request, prompt and output
  double memory_ratio = kUsableMemory;                ///< of the device's memory that the engine may use
  ExpertLoad experts;                                 ///< popularity of experts
  StepLaw law = StepLaw::service;
  std::optional<double> acceptance{};  ///< with Deployment::draft_tokens: of guesses, 0 to 1
  std::uint64_t seed = 1;              ///< of which guesses are right
};

/// A model on one instance (tp * dp * cp * pp GPUs) of a machine: its steps, and what its cache holds.
struct ServedModel {
  Status status = Status::ok;
  std::string reason;                            ///< empty when ok
  MemoryPerRank memory;                          ///< with the cache that the rest of the usable memory makes
  ServiceLimits limits;                          ///< of all ranks together
  std::int64_t cache_tokens = 0;                 ///< of an instance
  double cache_bytes_per_token = 0;              ///< of the whole model, as it is moved to another instance
  double state_bytes = 0;                        ///< of a sequence, whatever its length; of the whole model
  std::shared_ptr<const StepPipeline> pipeline;  ///< nullptr unless ok
  std::vector<std::shared_ptr<const ServiceStepTimes>> stages;  ///< of the pipeline
  std::vector<std::string> warnings;

  /// Of a step on ServiceStep::stage.
  [[nodiscard]] double seconds(const ServiceStep& step, IntervalEnd end) const;
  /// How steps pass the stages. Refers to this.
  [[nodiscard]] ServicePipeline stages_of_instance() const;
};

/// @param folder  of the profile of a GPU. @param engines  folder of the engines' descriptions.
/// @throws InputError when a file cannot be read, a degree does not divide what it splits, or the profile says no
/// memory capacity.
ServedModel serve_model(const Architecture& architecture, const Deployment& deployment, const std::string& folder,
                        const std::string& engines, const ServedLoad& load);

/// What a request spends outside of engine steps before its first token: what measured services take for a request that
/// is alone (the law of the engine, at that end of its interval) beyond the steps of its prompt; at least 0.
/// @param served  with status ok.
double front_seconds(const ServedModel& served, std::int64_t prompt, std::int64_t output, IntervalEnd end);

}  // namespace moecast
