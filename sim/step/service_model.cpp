#include "sim/step/service_model.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/plan/speculation.h"
#include "sim/step/context_parallel.h"
#include "sim/step/pipeline_schedule.h"

namespace moecast {
namespace {

constexpr double kUsualChunk = 8192;  ///< tokens of a chunk of a prompt
/// Host part of a first token: of a model without experts, over that of one with experts. It does not grow with layers:
/// at few requests DeepSeek's 61 take 0.12 to 0.25 s beyond the kernels, Qwen3-235B's 94 take 0.11 to 0.20 s.
constexpr double kDenseShare = 0.25;
constexpr int kRounds = 100;
constexpr double kCloseShare = 1e-12;  ///< of the time in which a request generates

StepShape decode_shape(const ServiceLoad& load, double requests, const Deployment& d) {
  StepShape decode;
  decode.decodes = requests;
  decode.checked = 1.0 + d.draft_tokens;
  decode.decode_kv = load.prompt + load.output / 2;
  decode = context_share(decode, d.cp);
  decode.rows = requests * decode.checked;
  decode.expert_rows = decode.rows * d.dp;
  return decode;
}

/// The mean chunk of a prompt. @param replicas  of attention that are at a prompt; others generate.
StepShape prefill_shape(const ServiceLoad& load, const Deployment& d, int replicas) {
  const double chunk = std::min(load.prompt, kUsualChunk);
  StepShape prefill;
  prefill.context = chunk;
  prefill.prompts = 1;
  prefill.prefix = (load.prompt - chunk) / 2;
  prefill = context_share(prefill, d.cp);
  prefill.rows = prefill.context;
  const double generating = std::max(1.0, load.concurrency / d.dp);
  prefill.expert_rows = chunk * replicas + generating * (d.dp - replicas);
  return prefill;
}

double chunks_of(const ServiceLoad& load) { return std::ceil(load.prompt / kUsualChunk); }

ServiceTerms terms_of(const StepModel& model, const ServiceLoad& load) {
  ServiceTerms terms;
  const Deployment& d = model.deployment();
  terms.requests = std::max(1.0, load.concurrency / d.dp);
  terms.output = load.output;
  terms.layers = model.operators().layers;
  terms.moe_layers = model.operators().moe_layers;
  terms.tokens_a_step = tokens_per_step(d.draft_tokens, load.acceptance);
  terms.wait_steps = load.wait_steps;
  terms.burst = load.waves > 0 ? 1 / load.waves : 0;
  terms.prompts.replicas = d.dp;
  terms.prompts.in_flight = std::max(1.0, load.concurrency);
  terms.prompts.wait_steps = model.engine().prompts_wait_steps;
  terms.prompts.most = std::max(1.0, std::floor(kUsualChunk / load.prompt));
  return terms;
}

/// Kernels of a step, and of the passes that guess behind it.
class StepKernels {
 public:
  StepKernels(const StepModel& model, std::span<const DraftPass> drafts) : model_(model), drafts_(drafts) {}

  [[nodiscard]] double operator()(const StepShape& shape) const {
    double seconds = sum(model_.times(shape));
    for (const DraftPass& draft : drafts_) {
      StepShape rows = shape;
      if (!draft.first) {
        rows = StepShape();
        rows.decodes = rows.rows = shape.decodes + shape.prompts;
        rows.decode_kv = shape.decodes > 0 ? shape.decode_kv : shape.context;
        rows.expert_rows = rows.rows * model_.deployment().dp;
      }
      seconds += draft.times * sum(draft.model.times(rows));
    }
    return seconds;
  }

 private:
  const StepModel& model_;
  std::span<const DraftPass> drafts_;
};

double stall_of(const ServiceTerms& t) { return t.stall_s.value_or(t.prefill_s); }

/// Between half of the requests and all of them.
template <class Decode>
double request_s(const ServiceTerms& terms, const Decode& decode_s) {
  const double half = std::max(1.0, std::round(terms.requests / 2));
  return terms.requests > half ? (terms.decode_s - decode_s(half)) / (terms.requests - half) : 0;
}

/// What a second prompt in the same step takes, of the first: weights are read once.
template <class Seconds>
double further_prompt(const ServiceLoad& load, const StepShape& prompt, const Seconds& seconds) {
  if (2 * load.prompt > kUsualChunk) return 1;
  StepShape two = prompt;
  two.prompts *= 2;
  two.context *= 2;
  two.rows *= 2;
  two.expert_rows += prompt.rows;
  const double one = seconds(prompt);
  return (seconds(two) - one) / one;
}

/// In flight, beside one.
double others(const ServiceTerms& t) {
  return std::max(0.0, (t.prompts.replicas > 1 ? t.prompts.in_flight : t.requests) - 1);
}

/// Steps with prompts and steps without.
struct StepMix {
  double prompts_a_second = 0;  ///< that come, on all replicas
  double decode_s = 0;          ///< a step without prompts
  double stall_s = 0;           ///< by which prompts lengthen a step

  [[nodiscard]] double long_s() const { return decode_s + stall_s; }
  /// Share of the steps that compute prompts: those before which some came.
  [[nodiscard]] double with_prompts() const {
    const double after_decode = -std::expm1(-prompts_a_second * decode_s);
    return after_decode / (after_decode + std::exp(-prompts_a_second * long_s()));
  }
  /// Prompts of a step that computes any. One that does is longer, so more come meanwhile.
  [[nodiscard]] double together() const {
    const double share = with_prompts();
    return share > 0 ? prompts_a_second * (stall_s + decode_s / share) : 1;
  }
  /// That a prompt waits for the end of the step in which it comes.
  [[nodiscard]] double rest_s() const {
    const double share = with_prompts();
    const double mean = share * long_s() + (1 - share) * decode_s;
    return (share * long_s() * long_s() + (1 - share) * decode_s * decode_s) / (2 * mean);
  }
};

/// What prompts take of those that generate.
struct Stalls {
  double prompt_s = 0;    ///< of the prompts that are computed together, each time
  double ahead_s = 0;     ///< that a prompt ahead takes
  double together = 1;    ///< prompts, each time
  double held_steps = 0;  ///< for which a prompt waits until replicas of attention have one each
};

/// Prompts come as requests end, and those of one step are computed together, as far as a step takes them; an engine
/// may hold them back until every replica of attention has one, for some steps at most.
Stalls stalls_of(const ServiceTerms& t, const StepMix& mix) {
  Stalls stalls{stall_of(t), stall_of(t)};
  const int dp = t.prompts.replicas;
  stalls.together = std::min(mix.together(), dp * t.prompts.most);
  if (t.prompts.wait_steps > 0 && stalls.together < dp && others(t) > 0) {
    const double arriving = mix.prompts_a_second * mix.decode_s;
    const double held = std::min(t.prompts.wait_steps, (dp - 1) / arriving);
    stalls.together = std::max(stalls.together, 1 + arriving * held);
    // The first of them waits all of it, the others come meanwhile.
    stalls.held_steps = held * (1 + (stalls.together - 1) / 2) / stalls.together;
  }
  const double replicas = std::min<double>(stalls.together, dp);
  if (dp > 1) stalls.ahead_s = stall_of(t) + (t.prompts.all_s - stall_of(t)) * (replicas - 1) / (dp - 1);
  const double of_a_replica = std::max(1.0, stalls.together / dp);
  stalls.prompt_s = stalls.ahead_s * (1 + (of_a_replica - 1) * t.prompts.further);
  return stalls;
}

}  // namespace

ServiceTerms service_terms(const StepModel& model, const ServiceLoad& load, std::span<const DraftPass> drafts) {
  ServiceTerms terms = terms_of(model, load);
  for (const DraftPass& draft : drafts) {
    terms.layers += draft.times * draft.model.operators().layers;
    terms.moe_layers += draft.times * draft.model.operators().moe_layers;
  }
  const StepKernels kernels(model, drafts);
  const Deployment& d = model.deployment();
  const StepShape decode = decode_shape(load, terms.requests, d);
  // A prompt of its own; what stalls those that generate are prompts of all replicas.
  const StepShape prefill = prefill_shape(load, d, 1);
  terms.decode_s = kernels(decode);
  terms.prefill_s = chunks_of(load) * kernels(prefill);
  terms.request_s = request_s(terms, [&](double requests) { return kernels(decode_shape(load, requests, d)); });
  terms.prompts.further = further_prompt(load, prefill, kernels);
  if (d.dp > 1) terms.prompts.all_s = chunks_of(load) * kernels(prefill_shape(load, d, d.dp));
  terms.decode_assumed_s = model.assumed_s(decode);
  terms.prefill_assumed_s = chunks_of(load) * model.assumed_s(prefill);
  return terms;
}

ServiceTerms service_terms(const StepPipeline& pipeline, const ServiceLoad& load) {
  const Deployment& d = pipeline.front().deployment();
  if (pipeline.stages.size() == 1) return service_terms(pipeline.front(), load);
  ServiceTerms terms = terms_of(pipeline.front(), load);
  const auto times = [&](const StepShape& shape) {
    MicroBatchTimes batch;
    for (const StepModel& stage : pipeline.stages) batch.stages.push_back(sum(stage.times(shape)));
    for (const StageLink& link : pipeline.links) batch.transfers.push_back(link.seconds(shape.rows));
    return batch;
  };
  const auto period_s = [&](double all) {
    std::vector<MicroBatchTimes> schedule;
    const std::int64_t requests = std::llround(all);
    for (const MicroBatch& kind : split_batch(requests, 0, micro_batches_of(d, requests))) {
      const MicroBatchTimes one = times(decode_shape(load, static_cast<double>(kind.decodes), d));
      schedule.insert(schedule.end(), kind.places.size(), one);
    }
    return pipeline_times(schedule).period_s;
  };
  const auto slowest_s = [&](const StepShape& shape) { return std::ranges::max(times(shape).stages); };
  terms.decode_s = period_s(terms.requests);
  terms.request_s = request_s(terms, period_s);
  const MicroBatchTimes chunk = times(prefill_shape(load, d, 1));
  terms.prefill_s = chunks_of(load) * pipeline_times({&chunk, 1}).longest_path_s;
  terms.stall_s = chunks_of(load) * std::ranges::max(chunk.stages);
  terms.prompts.further = further_prompt(load, prefill_shape(load, d, 1), slowest_s);
  terms.prompts.all_s = chunks_of(load) * slowest_s(prefill_shape(load, d, d.dp));
  terms.stages = static_cast<double>(pipeline.stages.size());
  terms.layers = terms.moe_layers = 0;
  const StepShape decode = decode_shape(load, terms.requests, d);
  for (const StepModel& stage : pipeline.stages) {
    terms.decode_assumed_s += stage.assumed_s(decode);
    terms.prefill_assumed_s += chunks_of(load) * stage.assumed_s(prefill_shape(load, d, 1));
    terms.layers += stage.operators().layers;
    terms.moe_layers += stage.operators().moe_layers;
  }
  return terms;
}

ServiceTimes service_times(const ServiceTerms& t, const EngineService& law) {
  ServiceTimes times;
  Stalls stalls;
  // Each round brings the share closer; a service that mostly reads prompts takes the most.
  for (int i = 0; i < kRounds; ++i) {
    const double generate = others(t) * times.generating;  // beside one
    const double kernels = t.decode_s - t.request_s * (others(t) - generate) / t.prompts.replicas;
    StepMix mix;
    mix.decode_s = law.kernel_factor * kernels + law.layer_s * t.layers + law.step_s * t.stages;
    mix.stall_s = law.stall_share * stalls.prompt_s;
    const double in_flight_s =
        i == 0 ? t.output * mix.decode_s / t.tokens_a_step : times.ttft_s + (t.output - 1) * times.tpot_s;
    mix.prompts_a_second = (others(t) + 1) / in_flight_s;
    stalls = stalls_of(t, mix);
    mix.stall_s = law.stall_share * stalls.prompt_s;
    times.tpot_s = mix.decode_s / t.tokens_a_step + generate / stalls.together / t.output * mix.stall_s;
    // Who comes with all others waits for half of them, and for the steps that they take.
    const double first_wave =
        (t.requests - 1) / 2 * (stalls.ahead_s * t.prompts.further + mix.decode_s / t.prompts.most);
    const double waits = (stalls.held_steps + t.wait_steps) * times.tpot_s * t.tokens_a_step;
    times.ttft_s = law.first_token_s * (t.moe_layers > 0 ? 1 : kDenseShare) + waits +
                   (others(t) > 0 ? mix.rest_s() : 0) + mix.decode_s +
                   law.prefill_factor * (t.prefill_s + stalls.prompt_s - stalls.ahead_s + t.burst * first_wave);
    const double generates = (t.output - 1) * times.tpot_s;
    const double share = generates / (times.ttft_s + generates);
    const bool found = std::abs(share - times.generating) < kCloseShare;
    times.generating = share;
    if (found) break;
  }
  return times;
}

double prefill_share(const ServiceTerms& t, double tpot) {
  const double in_flight = others(t) + 1;
  const Stalls stalls = stalls_of(t, {in_flight / (t.output * tpot), t.decode_s, stall_of(t)});
  return in_flight / stalls.together * stalls.prompt_s / (t.output * tpot);
}

}  // namespace moecast
