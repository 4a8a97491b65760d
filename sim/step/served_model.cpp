#include "sim/step/served_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "models/plan/cache_room.h"
#include "models/plan/context_limit.h"
#include "models/plan/speculation.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "sim/step/draft_passes.h"
#include "sim/step/popularity.h"
#include "sim/step/service_model.h"
#include "sim/step/step_model.h"

namespace moecast {
namespace {

void add_warnings(ServedModel& served, const StepPipeline& pipeline, const Architecture& architecture, StepLaw law) {
  const StepModel& steps = pipeline.front();
  const EngineSpec& engine = steps.engine();
  served.warnings.push_back(law == StepLaw::host
                                ? "host of " + engine.name + ": " + engine.host_source
                                : "steps of " + engine.name +
                                      ": as measured services of other deployments took (moecast validate serving)");
  for (const std::string& note : pipeline.notes()) served.warnings.push_back(note);
  if (steps.deployment().pp * steps.deployment().cp > 1) {
    served.warnings.emplace_back("pipeline stages and context parallelism: no service with them was measured");
  }
  if (steps.deployment().eager) {
    served.warnings.emplace_back("eager: no service was measured so; what launches add is the engine's host law");
  }
  if (steps.deployment().draft_tokens > 0) {
    served.warnings.emplace_back("guessed tokens: services that guess were measured with DeepSeek alone");
  } else if (!architecture.multi_token_prediction.empty()) {
    served.warnings.emplace_back("the layers of multi-token prediction are not part of the step (--draft-tokens)");
  }
}

/// Fills in limits and memory. @return false where the weights leave no room for one request.
bool size_cache(ServedModel& served, const Architecture& architecture, const Deployment& deployment,
                const EngineSpec& engine, const Profile& profile, const ServedLoad& load) {
  const HardwareQuantity* capacity = profile.find("memory_capacity");
  if (capacity == nullptr) {
    throw InputError(profile.name, "says no memory capacity", "add the quantity memory_capacity to profile.json");
  }
  const MemoryBreakdown needed = memory_beside_cache(architecture, deployment, load.batched_tokens);
  const double rest = cache_room(engine, capacity->value, load.memory_ratio, needed);
  served.memory = {needed.weights, Bytes(std::max(0.0, rest)), needed.activations, needed.workspace,
                   Bytes(capacity->value)};
  const CacheSize size = cache_size(architecture, deployment, load.longest);
  if (size.token <= 0) throw InputError(architecture.name, "keeps no cache of tokens", "choose a model with attention");
  ServiceLimits& limits = served.limits;
  limits.block_tokens = deployment.kv_block_tokens;
  const double block = size.token * static_cast<double>(limits.block_tokens);
  limits.state_blocks = static_cast<std::int64_t>(std::ceil(size.state / block));
  const auto of_rank = static_cast<std::int64_t>(std::max(0.0, rest) / block);
  const std::int64_t longest = limits.blocks_of(load.longest);
  // A sequence lies on one rank of attention; of a pipeline each micro-batch has its share.
  if (of_rank / deployment.pp < longest) {
    served.status = Status::does_not_fit;
    served.reason =
        rest <= 0
            ? fmt::format("weights, activations and workspace need {} of the {} that the engine may use of a rank",
                          format_bytes(needed.total()),
                          format_bytes(Bytes((engine.caches_free_memory ? 1 : load.memory_ratio) * capacity->value)))
            : fmt::format("a request of {} tokens needs {} of cache on a rank, {} are there", load.longest,
                          format_bytes(Bytes(static_cast<double>(longest) * block)),
                          format_bytes(Bytes(rest / deployment.pp)));
    return false;
  }
  limits.kv_blocks = of_rank * deployment.dp;
  limits.reserves_outputs = engine.reserves_outputs;
  limits.batched_tokens = load.batched_tokens * deployment.dp;
  limits.chunk_tokens = load.batched_tokens;
  limits.sequences = load.sequences * deployment.dp;
  limits.guesses = {deployment.draft_tokens, load.acceptance.value_or(0), load.seed};
  served.cache_tokens = *limits.kv_blocks * limits.block_tokens;
  Deployment whole;
  whole.dtype = deployment.dtype;
  whole.kv_dtype = deployment.kv_dtype;
  whole.kv_block_tokens = deployment.kv_block_tokens;
  const CacheSize moved = cache_size(architecture, whole, load.longest);
  served.cache_bytes_per_token = moved.token;
  served.state_bytes = moved.state;
  return true;
}

/// Operators refer to the calibration that they were found in.
struct OwnedModel {
  KernelCalibration kernels;
  std::optional<StepPipeline> steps;
  std::vector<DraftPass> drafts;
};

}  // namespace

ServedModel serve_model(const Architecture& architecture, const Deployment& asked, const std::string& folder,
                        const std::string& engines, const ServedLoad& load) {
  if (!architecture.encoder.empty()) {
    throw InputError(architecture.name, "encoders on GPUs are not supported yet", "ask for a decoder-only model");
  }
  Workload generates;
  generates.acceptance = load.acceptance;
  require_drafts(architecture, asked, generates);
  ServedModel served;
  const Profile profile = read_profile(folder);
  EngineSpec engine = read_engine(engines, asked.backend);
  Deployment deployment = asked;
  deployment.extra_layers = engine.pipeline.extra_layers;
  if (!size_cache(served, architecture, deployment, engine, profile, load)) return served;
  served.limits.prompts_together = deployment.dp;
  served.limits.prompts_wait_steps = engine.prompts_wait_steps;
  if (const std::string problem = beyond_context(architecture, load.longest); !problem.empty()) {
    served.status = Status::outside_range;
    served.reason = problem;
    return served;
  }
  const auto owned = std::make_shared<OwnedModel>();
  owned->kernels = read_kernel_calibration(folder, profile.name);
  const StepRouting routing{popularity_sigma(architecture, load.experts), load_beyond_sigma(load.experts)};
  owned->steps.emplace(make_step_pipeline(architecture, deployment, engine, owned->kernels, routing));
  if (const std::vector<std::string> missing = owned->steps->not_executed(); !missing.empty()) {
    served.status = Status::outside_range;
    served.reason = missing.front() + " is not supported yet on GPUs";
    return served;
  }
  owned->drafts = make_draft_passes(architecture, deployment, engine, owned->kernels, routing);
  std::vector<StepFollower> drafts;
  for (const DraftPass& draft : owned->drafts) {
    drafts.push_back({std::shared_ptr<const StepModel>(owned, &draft.model), draft.times, draft.first});
  }
  const bool calibrated = deployment.draft_tokens == 0 && deployment.pp * deployment.cp == 1 &&
                          architecture.name == engine.calibrated_model && profile.name == engine.calibrated_system;
  add_warnings(served, *owned->steps, architecture, load.law);
  served.pipeline = std::shared_ptr<const StepPipeline>(owned, &*owned->steps);
  for (std::size_t s = 0; s < served.pipeline->stages.size(); ++s) {
    if (const std::size_t same = served.pipeline->equals[s]; same < s) {
      served.stages.push_back(served.stages[same]);
      continue;
    }
    served.stages.push_back(std::make_shared<const ServiceStepTimes>(
        std::shared_ptr<const StepModel>(owned, &served.pipeline->stages[s]), calibrated, load.law, drafts));
  }
  return served;
}

double ServedModel::seconds(const ServiceStep& step, IntervalEnd end) const {
  return stages[static_cast<std::size_t>(step.stage)]->seconds(step, end);
}

ServicePipeline ServedModel::stages_of_instance() const {
  return {static_cast<int>(stages.size()), [this](const ServiceStep& step) {
            const auto stage = static_cast<std::size_t>(step.stage);
            return pipeline->links[stage].seconds(stages[stage]->rows(step));
          }};
}

double front_seconds(const ServedModel& served, std::int64_t prompt, std::int64_t output, IntervalEnd end) {
  const StepModel& steps = served.pipeline->front();
  const EngineSpec& engine = steps.engine();
  const double alone = steps.deployment().dp;
  ServiceTerms terms =
      service_terms(*served.pipeline, {static_cast<double>(prompt), static_cast<double>(output), alone});
  terms.prompts.wait_steps = 0;  // a request that is alone waits for nobody; others are simulated
  double measured = service_times(terms, engine.service).ttft_s;
  if (end == IntervalEnd::low) measured *= std::exp(-engine.ttft_interval[0]);
  if (end == IntervalEnd::high) measured *= std::exp(engine.ttft_interval[1]);
  ServiceSetup setup;
  setup.limits = served.limits;
  setup.pipeline = served.stages_of_instance();
  const ServiceRequest request{0, prompt, 1};
  const ServiceOutcome lone =
      simulate_service({&request, 1}, setup, [&](const ServiceStep& step) { return served.seconds(step, end); });
  return std::max(0.0, measured - lone.ttft.p50);
}

}  // namespace moecast
