#pragma once
#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "sim/step/draft_passes.h"
#include "sim/step/step_pipeline.h"

namespace moecast {

/// Continuous batching of equal requests, as the service law sees it: one that ends is followed by the next.
struct ServiceLoad {
  double prompt = 0;       ///< tokens
  double output = 0;       ///< tokens
  double concurrency = 1;  ///< requests in flight on all ranks
  double waves = 0;       ///< requests in all, of those in flight; the first wave comes at once. 0: it has run for long
  double wait_steps = 0;  ///< of the engine that a prompt waits for its scheduler, in the mean
  double acceptance = 0;  ///< of guesses (Deployment::draft_tokens), 0 to 1
  std::optional<double> admitted{};  ///< requests that the cache has room for, of all replicas; nullopt: all
};

/// Prompts that are computed in one step.
struct PromptsTogether {
  int replicas = 1;       ///< of attention, which step together
  double in_flight = 1;   ///< requests of all of them
  double wait_steps = 0;  ///< for which a prompt waits at most, until every replica has one
  double all_s = 0;       ///< what a prompt on every replica takes of the slowest stage, in chunks
  double most = 1;        ///< that a replica computes in one step
  double further = 1;     ///< what a second prompt of a replica in the same step takes, of the first
  double later = 1;       ///< what each one beyond the second takes
  double shared_s = 0;    ///< of all_s, as ServiceTerms::shared_s

  /// What so many prompts of a replica take in the same step, of one.
  [[nodiscard]] double of_several(double count) const {
    return 1 + std::clamp(count - 1, 0.0, 1.0) * further + std::max(0.0, count - 2) * later;
  }
};

/// Kernels of a step in which fewer generate.
struct FewerDecodes {
  double requests = 0;  ///< of a rank; 0: as many, as far as is known
  double seconds = 0;
};

struct ServiceTerms {
  double decode_s = 0;   ///< kernels of a step in which all generate, halfway through their outputs
  double prefill_s = 0;  ///< kernels of one prompt, in chunks
  double layers = 0;     ///< StepOperators::launching_layers
  double moe_layers = 0;
  double requests = 1;  ///< of a rank
  double output = 1;
  double stages = 1;                    ///< of a pipeline, that each token passes
  std::array<FewerDecodes, 2> fewer{};  ///< fewest last
  double tokens_a_step = 1;             ///< of a request, with those that were guessed and right
  double wait_steps = 0;                ///< that a prompt waits for the scheduler
  double queued = 0;                    ///< requests on all replicas for which the cache has no room
  double burst = 0;                     ///< share of the requests that come at once, in the beginning
  double shared_s = 0;                  ///< of a prompt: weights that the step reads anyhow, where it generates too
  std::optional<double> stall_s{};      ///< what a prompt takes of the slowest stage; nullopt: prefill_s, of one stage
  PromptsTogether prompts{};
  double decode_assumed_s = 0;  ///< by which operators of physics alone may be off in decode_s, 90 %
  double prefill_assumed_s = 0;

  /// Of a prompt that lies on one replica of attention.
  [[nodiscard]] double one_stall_s() const { return stall_s.value_or(prefill_s); }
};

/// @param drafts  passes of the modules that guess.
ServiceTerms service_terms(const StepModel& model, const ServiceLoad& load, std::span<const DraftPass> drafts = {});
/// Requests are dealt to as many micro-batches as there are stages, which follow each other without a pause.
ServiceTerms service_terms(const StepPipeline& pipeline, const ServiceLoad& load);

}  // namespace moecast
