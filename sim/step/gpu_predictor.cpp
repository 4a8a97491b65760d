#include "sim/step/gpu_predictor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "models/plan/context_limit.h"
#include "models/plan/deployment_rules.h"
#include "models/plan/exact_rows.h"
#include "models/plan/graph.h"
#include "models/plan/memory.h"
#include "models/plan/speculation.h"
#include "sim/analytic/offload_cost.h"
#include "sim/step/gpu_training_step.h"
#include "sim/step/popularity.h"
#include "sim/step/stage_answer.h"
#include "sim/step/step_pipeline.h"

namespace moecast {
namespace {

constexpr std::size_t kMostModels = 64;
constexpr const char* kDraft = "draft.";

class GpuPredictor final : public Predictor {
 public:
  GpuPredictor(const std::string& folder, std::string engines)
      : profile_(read_profile(folder)),
        kernels_(read_kernel_calibration(folder, profile_.name)),
        engines_(std::move(engines)) {}

  [[nodiscard]] Prediction predict(const Architecture& architecture, const Deployment& asked, const Workload& workload,
                                   const Without& without) const override {
    const Deployment replicated = with_attention_replicas(asked);
    Prediction prediction = predict_on(architecture, replicated, workload, without);
    if (replicated.dp == asked.dp) return prediction;
    const std::string ranks = std::to_string(asked.ep);
    prediction.warnings.insert(
        prediction.warnings.begin(),
        is_lone_block(architecture)
            ? "tokens come from " + ranks + " ranks, which hold the experts (say --tp or --dp for another split)"
            : "attention has " + ranks +
                  " replicas, one on each of the experts' ranks (say --tp or --dp for another split)");
    return prediction;
  }

 private:
  [[nodiscard]] Prediction predict_on(const Architecture& architecture, const Deployment& asked,
                                      const Workload& workload, const Without& without) const {
    require_drafts(architecture, asked, workload);
    if (workload.phase == Phase::train) return predict_training(architecture, asked, workload, without);
    refuse_phase(architecture, asked, workload);
    require_exact_rows(architecture, asked, workload);
    Deployment deployment = with_resident_experts(architecture, asked, workload, capacity());
    if (deployment.backend.empty()) deployment.backend = kUsualEngine;
    const EngineSpec& engine = engine_of(deployment.backend);
    deployment.extra_layers = engine.pipeline.extra_layers;
    if (deployment.eager && is_lone_block(architecture)) {
      throw InputError("eager", "a layer by itself is timed without the host that launches it", "ask about a model");
    }
    const Passes passes = passes_of(architecture, deployment, engine, workload, without);
    if (!is_lone_block(architecture)) require_consistent(architecture, deployment);
    Prediction prediction;
    prediction.memory = memory_of(architecture, deployment, workload);
    const ParameterCount count = count_parameters(architecture);
    prediction.total_parameters = count.total;
    prediction.active_parameters = count.active;
    const MemoryPerRank& memory = prediction.memory;
    if (memory.capacity && memory.total() > *memory.capacity && !without.memory_capacity) {
      prediction.status = Status::does_not_fit;
      prediction.reason = "needs " + format_bytes(memory.total()) + " a rank, " + format_bytes(*memory.capacity) +
                          " are there: " + format_bytes(memory.total() - *memory.capacity) + " too much";
      return prediction;
    }
    if (const std::string problem = beyond_context(architecture, longest_sequence(workload)); !problem.empty()) {
      prediction.status = Status::outside_range;
      prediction.reason = problem;
      return prediction;
    }
    for (const Pass& pass : passes) {
      if (const std::vector<std::string> missing = pass.model->not_executed(); !missing.empty()) {
        prediction.status = Status::outside_range;
        prediction.reason = missing.front() + " is not supported yet on GPUs";
        return prediction;
      }
    }
    const bool fetches = fetches_experts(architecture, deployment, workload);
    fill(passes, architecture, deployment, workload, fetches, without, prediction);
    for (const Pass& pass : passes) {
      if (pass.prefix != kDraft) warn(*pass.model, architecture, workload, prediction);
    }
    if (const std::string missing = not_offered(architecture, deployment, engine);
        !missing.empty() && !is_lone_block(architecture)) {
      prediction.warnings.push_back(missing);
    }
    if (memory.capacity && !is_lone_block(architecture) && memory.total() > kUsableMemory * *memory.capacity) {
      prediction.warnings.push_back(fmt::format(
          "memory: {} of {} a rank; engines leave a tenth to others, and so do serve and recommend: it does not start "
          "there",
          format_bytes(memory.total()), format_bytes(*memory.capacity)));
    }
    if (deployment.offload) {
      charge_offload(architecture, deployment, workload, host_link(profile_, *deployment.offload), without, prediction);
    }
    if (fetches && !is_lone_block(architecture)) {
      prediction.warnings.emplace_back(
          "the host sees which experts to fetch: no graph is replayed, launches are eager");
    }
    return prediction;
  }

  /// A stack of the model and what it computes in the step.
  struct Pass {
    std::shared_ptr<const StepPipeline> model;
    std::shared_ptr<const StepPipeline> even;  ///< experts chosen alike, where imbalance is to be removed; else null
    Workload workload;
    std::string prefix;  ///< of its operators' names; empty: the model itself
    double times = 1;    ///< one after another
  };
  using Passes = std::vector<Pass>;

  /// Rows of each expert are said of one layer whose experts are alike.
  static void require_exact_rows(const Architecture& architecture, const Deployment& deployment,
                                 const Workload& workload) {
    if (workload.rows_per_expert.empty()) return;
    const auto* moe = is_lone_block(architecture) && architecture.decoder.size() == 1
                          ? std::get_if<MoeBlock>(&architecture.decoder.front().blocks.front())
                          : nullptr;
    if (moe == nullptr || moe->experts.size() != 1) {
      throw InputError("rows_per_expert", "are those of a single MoE layer of equal experts", "write --load");
    }
    if (deployment.redundant_experts > 0) {
      throw InputError("rows_per_expert", "say nothing of copies", "leave out the copies, or write --load");
    }
    require_rows(workload.rows_per_expert, moe->expert_count(), moe->router.top_k, std::llround(step_tokens(workload)));
  }

  static void refuse_phase(const Architecture& architecture, const Deployment& deployment, const Workload& workload) {
    const bool encodes = workload.phase == Phase::encode;
    if ((encodes ? architecture.encoder : architecture.decoder).empty()) {
      throw InputError("phase", architecture.name + " has no " + (encodes ? "encoder" : "decoder") + " layers to run",
                       encodes ? "choose decode, prefill or mixed" : "choose encode");
    }
    if (architecture.encoder.empty()) return;
    if (deployment.pp > 1) throw InputError("pp", "stages of an encoder are not supported yet", "leave it out");
    if (deployment.cp > 1) throw InputError("cp", "encoders are not split over contexts", "leave it out");
  }

  /// Encoders run before the prompts of the decoder.
  [[nodiscard]] Passes passes_of(const Architecture& architecture, const Deployment& deployment,
                                 const EngineSpec& engine, const Workload& workload, const Without& without) const {
    const double sigma = popularity_sigma(architecture, workload.load);
    const std::optional<ExpertLoad> load = load_beyond_sigma(workload.load);
    Passes passes;
    const auto add = [&](const Architecture& stack, const Deployment& ranks, const Workload& work,
                         const std::string& prefix, double times = 1) {
      const bool joins = prefix == kDraft;
      passes.push_back(
          {model_of(
               stack, ranks, engine,
               {sigma, load, workload.modalities, {workload.rows_per_expert.begin(), workload.rows_per_expert.end()}},
               joins),
           without.expert_imbalance ? model_of(stack, ranks, engine, {0, std::nullopt, workload.modalities}, joins)
                                    : nullptr,
           work, prefix, times});
    };
    const std::int64_t prompts = workload.phase == Phase::mixed    ? workload.prefill_batch
                                 : workload.phase == Phase::decode ? 0
                                                                   : workload.batch;
    if (!architecture.encoder.empty() && prompts > 0) {
      Architecture encoder = architecture;
      encoder.hidden = stack_hidden(architecture, true);
      encoder.decoder = architecture.encoder;
      encoder.encoder.clear();
      encoder.vocabulary = 0;
      Workload encode = workload;
      encode.phase = Phase::prefill;
      encode.batch = prompts;
      encode.context = encode.prefill_batch = encode.prefix = 0;
      encode.prompt = workload.phase == Phase::encode ? workload.prompt : source_tokens(workload);
      add(encoder, deployment, encode, workload.phase == Phase::encode ? "" : "encoder.");
    }
    if (workload.phase != Phase::encode) add(architecture, deployment, workload, "");
    if (deployment.draft_tokens == 0) return passes;
    // The first guess sees every row of the step, for its cache; further ones a row of each sequence.
    add(draft_stack(architecture, 0), deployment, workload, kDraft);
    Deployment later = deployment;
    later.draft_tokens = 0;
    Workload guesses = workload;
    guesses.phase = Phase::decode;
    guesses.batch = workload.batch + workload.prefill_batch;
    guesses.context = longest_sequence(workload);
    guesses.prefill_batch = guesses.prefix = 0;
    const auto modules = static_cast<int>(draft_modules(architecture));
    for (int guess = 1; guess < std::min(modules, deployment.draft_tokens); ++guess) {
      const int last = guess + 1 == modules ? deployment.draft_tokens - guess : 1;
      add(draft_stack(architecture, guess), later, guesses, kDraft, last);
    }
    if (modules == 1 && deployment.draft_tokens > 1) {
      add(draft_stack(architecture, 0), later, guesses, kDraft, deployment.draft_tokens - 1);
    }
    return passes;
  }

  [[nodiscard]] Prediction predict_training(const Architecture& architecture, const Deployment& deployment,
                                            const Workload& workload, const Without& without) const {
    static_cast<void>(with_resident_experts(architecture, deployment, workload, capacity()));  // refuses
    const MemoryPerRank memory = memory_of(architecture, deployment, workload);
    Prediction prediction = predict_training_step(kernels_, architecture, deployment, workload, without);
    if (memory.capacity && memory.total() > *memory.capacity && !without.memory_capacity) {
      const std::optional<Flops> flops = prediction.flops;
      prediction = {};
      prediction.flops = flops;
      prediction.status = Status::does_not_fit;
      prediction.reason = "needs " + format_bytes(memory.total()) + " a rank, " + format_bytes(*memory.capacity) +
                          " are there: " + format_bytes(memory.total() - *memory.capacity) + " too much";
    }
    prediction.memory = memory;
    const ParameterCount count = count_parameters(architecture);
    prediction.total_parameters = count.total;
    prediction.active_parameters = count.active;
    return prediction;
  }

  struct Known {
    Architecture architecture;
    Deployment deployment;
    StepRouting routing;
    bool joins = false;
    std::shared_ptr<const StepPipeline> model;
  };

  const EngineSpec& engine_of(const std::string& backend) const {
    const std::lock_guard lock(mutex_);
    const auto found = engine_specs_.find(backend);
    if (found != engine_specs_.end()) return found->second;
    return engine_specs_.emplace(backend, read_engine(engines_, backend)).first->second;
  }

  std::shared_ptr<const StepPipeline> model_of(const Architecture& architecture, Deployment deployment,
                                               const EngineSpec& engine, const StepRouting& routing, bool joins) const {
    deployment.micro_batches.reset();  // the same kernels serve any number
    deployment.offload.reset();        // and experts from anywhere
    const std::lock_guard lock(mutex_);
    for (const Known& known : known_) {
      if (known.joins == joins && known.routing == routing && known.deployment == deployment &&
          known.architecture == architecture) {
        return known.model;
      }
    }
    auto model = std::make_shared<const StepPipeline>(
        make_step_pipeline(architecture, deployment, engine, kernels_, routing, joins));
    if (known_.size() >= kMostModels) known_.erase(known_.begin());
    known_.push_back({architecture, deployment, routing, joins, model});
    return model;
  }

  [[nodiscard]] MemoryPerRank memory_of(const Architecture& architecture, const Deployment& deployment,
                                        const Workload& workload) const {
    const MemoryBreakdown needed = memory_per_rank(architecture, deployment, workload);
    MemoryPerRank memory{needed.weights, needed.kv_cache,  needed.activations,      needed.workspace,
                         capacity(),     needed.gradients, needed.optimizer_states, needed.saved_activations};
    return memory;
  }

  [[nodiscard]] std::optional<Bytes> capacity() const {
    const HardwareQuantity* known = profile_.find("memory_capacity");
    return known != nullptr ? std::optional(Bytes(known->value)) : std::nullopt;
  }

  /// @param deployment  as asked for: models are kept for any number of micro-batches.
  void fill(const Passes& passes, const Architecture& architecture, const Deployment& deployment,
            const Workload& workload, bool fetches, const Without& without, Prediction& prediction) const {
    const StepModel& model = passes.front().model->front();
    StageAnswer answer;
    double drafting = 0;
    for (const Pass& pass : passes) {
      const StepPipeline* even = pass.even.get();
      const bool drafts = pass.prefix == kDraft;
      const StageQuestion question{pass.workload, kernels_.device, without, drafts, fetches};
      StageAnswer one;
      if (pass.model->stages.size() == 1) {
        one = answer_stage(pass.model->front(), even != nullptr ? &even->front() : nullptr,
                           whole_batch(pass.model->front(), pass.workload), is_lone_block(architecture), question);
      } else {
        one = answer_stages(*pass.model, even, deployment, architecture.decoder.size(), question,
                            prediction.pipeline.emplace());
      }
      if (pass.times != 1) repeat(one, pass.times);
      if (drafts) drafting += one.cost.seconds;
      for (OperatorCost& cost : one.operators) cost.name = pass.prefix + cost.name;
      if (&pass == &passes.front()) {
        answer = std::move(one);
      } else {
        append(answer, one);
      }
    }
    prediction.operators = std::move(answer.operators);
    const double seconds = answer.cost.seconds;
    const EngineSpec& engine = model.engine();
    const double half = answer.half_width;
    const bool drafts = deployment.draft_tokens > 0;
    const bool calibrated = !drafts && !deployment.eager && architecture.name == engine.calibrated_model &&
                            profile_.name == engine.calibrated_system && model.deployment().pp == 1 &&
                            model.deployment().cp == 1;
    prediction.latency = Seconds(seconds);
    // A layer by itself has no host, whose part services err by most.
    const bool own = calibrated || is_lone_block(architecture);
    const auto width = [&](double unseen) { return (own ? half : std::max(half, unseen)) + answer.assumed; };
    prediction.low = Seconds(seconds * std::exp(-width(engine.tpot_interval[0])));
    prediction.high = Seconds(seconds * std::exp(width(engine.tpot_interval[1])));
    prediction.origin = step_origin(prediction.operators, seconds);
    prediction.flops = Flops(answer.flops);
    prediction.throughput_tokens_per_s = step_tokens(workload) / seconds;
    if (drafts && workload.acceptance && workload.phase != Phase::prefill) {
      const double tokens = tokens_per_step(deployment.draft_tokens, *workload.acceptance);
      prediction.speculation = {deployment.draft_tokens,   *workload.acceptance,     tokens,
                                Seconds(seconds / tokens), *prediction.low / tokens, *prediction.high / tokens,
                                Seconds(drafting)};
      const double guessed = static_cast<double>(workload.batch) * (tokens - 1);
      prediction.throughput_tokens_per_s = (step_tokens(workload) + guessed) / seconds;
    }
    Factors& factors = prediction.factors;
    factors.all_to_all = Seconds(answer.communication_s);
    factors.routing_overhead = Seconds(answer.router_s);
    factors.memory_bandwidth = Seconds(answer.memory_s);
    factors.compute = Seconds(std::max(0.0, seconds - answer.communication_s - answer.router_s - answer.memory_s));
    if (model.deployment().ep == 1) factors.expert_parallel_efficiency_ratio = 1;
    const double launch = seconds - answer.kernels_s;
    const std::array<std::pair<double, const char*>, 5> causes{
        {{answer.communication_s, "all_to_all"},
         {answer.router_s, "router"},
         {answer.memory_s, "memory_bandwidth"},
         {answer.kernels_s - answer.communication_s - answer.router_s - answer.memory_s, "compute"},
         {launch, "launch"}}};
    prediction.bottleneck = std::ranges::max_element(causes)->second;
  }

  static void warn(const StepPipeline& pipeline, const Architecture& architecture, const Workload& workload,
                   Prediction& prediction) {
    const StepModel& model = pipeline.front();
    const auto add = [&](const std::string& text) {
      if (std::ranges::find(prediction.warnings, text) == prediction.warnings.end()) {
        prediction.warnings.push_back(text);
      }
    };
    if (model.deployment().pp * model.deployment().cp > 1) {
      add("pipeline stages and context parallelism: no step with them was measured; the interval is that of "
          "deployments "
          "that were not seen");
    }
    if (!is_lone_block(architecture)) {
      add("host of " + model.engine().name + ": " + model.engine().host_source);
    }
    if (model.deployment().eager) {
      add(kEagerNote);
    }
    if (!workload.tasks.tasks.empty()) {
      add("tasks: kernels run as for one task; experts that are fetched know the mix");
    }
    for (const std::string& note : pipeline.notes()) add(note);
    if (model.deployment().draft_tokens > 0) {
      add("guessed tokens: no step that guesses was measured; attention to what is checked is that of as many more "
          "heads, the interval that of deployments that were not seen");
    } else if (!architecture.multi_token_prediction.empty()) {
      add("the layers of multi-token prediction are not part of the step: --draft-tokens 1 --acceptance 0.8 guesses");
    }
  }

  Profile profile_;
  KernelCalibration kernels_;
  std::string engines_;
  mutable std::mutex mutex_;
  mutable std::vector<Known> known_;
  mutable std::map<std::string, EngineSpec> engine_specs_;  ///< never erased: references stay
};

}  // namespace

std::unique_ptr<Predictor> load_gpu_predictor(const std::string& folder, const std::string& engines) {
  return std::make_unique<GpuPredictor>(folder, engines);
}

Deployment with_attention_replicas(Deployment deployment) {
  const bool unsaid = deployment.tp == 1 && deployment.dp == 1 && deployment.cp == 1;
  if (deployment.ep > 1 && unsaid) deployment.dp = deployment.ep;
  return deployment;
}

}  // namespace moecast
