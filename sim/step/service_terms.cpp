#include "sim/step/service_terms.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/plan/speculation.h"
#include "sim/step/context_parallel.h"
#include "sim/step/pipeline_schedule.h"

namespace moecast {
namespace {

constexpr double kUsualChunk = kUsualBatchedTokens;  ///< tokens of prompts in a step
constexpr double kLeastPart = 0.05;                  ///< of a second prompt beside the first, that says what it takes

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

/// A chunk of a prompt. @param prefix  tokens before it. @param replicas  of attention that are at one; others
/// generate.
StepShape chunk_shape(const ServiceLoad& load, const Deployment& d, int replicas, double chunk, double prefix) {
  StepShape prefill;
  prefill.context = chunk;
  prefill.prompts = 1;
  prefill.prefix = prefix;
  prefill = context_share(prefill, d.cp);
  prefill.rows = prefill.context;
  const double generating = std::max(1.0, load.concurrency / d.dp);
  prefill.expert_rows = chunk * replicas + generating * (d.dp - replicas);
  return prefill;
}

/// A step that generates, and computes that chunk on so many replicas too.
StepShape mixed_shape(const StepShape& decode, const StepShape& chunk, int replicas) {
  StepShape mixed = decode;
  mixed.context = chunk.context;
  mixed.prompts = chunk.prompts;
  mixed.prefix = chunk.prefix;
  mixed.rows += chunk.rows;
  mixed.expert_rows += chunk.rows * replicas;
  return mixed;
}

/// Of a whole prompt: whole chunks, the mean one for all, and what is left over.
template <class Seconds>
double prompt_seconds(const ServiceLoad& load, const Deployment& d, int replicas, const Seconds& seconds) {
  const double whole = std::floor(load.prompt / kUsualChunk);
  const double rest = load.prompt - whole * kUsualChunk;
  double sum = 0;
  if (whole > 0) sum += whole * seconds(chunk_shape(load, d, replicas, kUsualChunk, (whole - 1) / 2 * kUsualChunk));
  if (rest > 0) sum += seconds(chunk_shape(load, d, replicas, rest, whole * kUsualChunk));
  return sum;
}

/// Those that are served at once; the others wait.
ServiceLoad admitted_load(const ServiceLoad& load, const Deployment& d) {
  ServiceLoad served = load;
  if (load.admitted) served.concurrency = std::min(load.concurrency, std::max<double>(d.dp, *load.admitted));
  return served;
}

ServiceTerms terms_of(const StepModel& model, const ServiceLoad& load) {
  ServiceTerms terms;
  const Deployment& d = model.deployment();
  terms.requests = std::max(1.0, load.concurrency / d.dp);
  terms.output = load.output;
  terms.layers = model.operators().launching_layers();
  terms.moe_layers = model.operators().moe_layers;
  terms.tokens_a_step = tokens_per_step(d.draft_tokens, load.acceptance);
  terms.wait_steps = load.wait_steps;
  terms.burst = load.waves > 0 ? 1 / load.waves : 0;
  terms.prompts.replicas = d.dp;
  terms.prompts.in_flight = std::max(1.0, load.concurrency);
  terms.prompts.wait_steps = model.engine().prompts_wait_steps;
  terms.prompts.most = std::max(1.0, kUsualChunk / load.prompt);
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

/// Half of the requests, and an eighth: steps of few are bound by memory, of many by arithmetic.
template <class Decode>
std::array<FewerDecodes, 2> fewer_decodes(const ServiceTerms& terms, const Decode& decode_s) {
  std::array<FewerDecodes, 2> fewer{};
  double last = terms.requests;
  for (std::size_t i = 0; i < fewer.size(); ++i) {
    const double requests = std::max(1.0, std::round(terms.requests / (i == 0 ? 2 : 8)));
    if (requests >= last) break;
    fewer[i] = {requests, decode_s(requests)};
    last = requests;
  }
  return fewer;
}

/// What further prompts of every replica in the same step take, of the first: weights are read once. Up to as many as
/// the step takes.
template <class Seconds>
void add_further_prompts(const ServiceLoad& load, const Deployment& d, const Seconds& seconds,
                         PromptsTogether& prompts) {
  const double most = kUsualChunk / load.prompt;
  const double second = std::min(1.0, most - 1);
  if (second < kLeastPart) return;
  const auto together = [&](double more) {
    StepShape shape = chunk_shape(load, d, d.dp, load.prompt, 0);
    const double rows = shape.rows;
    shape.prompts *= 1 + more;
    shape.context *= 1 + more;
    shape.rows *= 1 + more;
    shape.expert_rows += more * rows * d.dp;
    return seconds(shape);
  };
  const double alone = together(0);
  const double two = together(second);
  prompts.further = std::max(0.0, (two - alone) / (second * alone));
  prompts.later = most > 2 ? std::max(0.0, (together(most - 1) - two) / ((most - 2) * alone)) : prompts.further;
}

/// What prompts need not wait for where the step reads the weights anyhow.
/// @param decode_s  of the step alone.
template <class Seconds>
void add_shared(ServiceTerms& terms, const ServiceLoad& load, const Deployment& d, const StepShape& decode,
                double decode_s, const Seconds& seconds) {
  const auto shared = [&](int replicas, double alone_s) {
    const double added_s = prompt_seconds(load, d, replicas, [&](const StepShape& chunk) {
      return seconds(mixed_shape(decode, chunk, replicas)) - decode_s;
    });
    return std::clamp(alone_s - added_s, 0.0, alone_s);
  };
  terms.shared_s = shared(1, terms.one_stall_s());
  if (d.dp > 1) terms.prompts.shared_s = shared(d.dp, terms.prompts.all_s);
}

}  // namespace

ServiceTerms service_terms(const StepModel& model, const ServiceLoad& offered, std::span<const DraftPass> drafts) {
  const ServiceLoad load = admitted_load(offered, model.deployment());
  ServiceTerms terms = terms_of(model, load);
  terms.queued = offered.concurrency - load.concurrency;
  for (const DraftPass& draft : drafts) {
    terms.layers += draft.times * draft.model.operators().launching_layers();
    terms.moe_layers += draft.times * draft.model.operators().moe_layers;
  }
  const StepKernels kernels(model, drafts);
  const Deployment& d = model.deployment();
  const StepShape decode = decode_shape(load, terms.requests, d);
  terms.decode_s = kernels(decode);
  terms.prefill_s = prompt_seconds(load, d, 1, kernels);
  terms.fewer = fewer_decodes(terms, [&](double requests) { return kernels(decode_shape(load, requests, d)); });
  add_further_prompts(load, d, kernels, terms.prompts);
  if (d.dp > 1) terms.prompts.all_s = prompt_seconds(load, d, d.dp, kernels);
  if (model.engine().mixes_prompts) add_shared(terms, load, d, decode, terms.decode_s, kernels);
  terms.decode_assumed_s = model.assumed_s(decode);
  terms.prefill_assumed_s = prompt_seconds(load, d, 1, [&](const StepShape& shape) { return model.assumed_s(shape); });
  return terms;
}

ServiceTerms service_terms(const StepPipeline& pipeline, const ServiceLoad& offered) {
  const Deployment& d = pipeline.front().deployment();
  if (pipeline.stages.size() == 1) return service_terms(pipeline.front(), offered);
  const ServiceLoad load = admitted_load(offered, d);
  ServiceTerms terms = terms_of(pipeline.front(), load);
  terms.queued = offered.concurrency - load.concurrency;
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
  terms.fewer = fewer_decodes(terms, period_s);
  terms.prefill_s = prompt_seconds(load, d, 1, [&](const StepShape& shape) {
    const MicroBatchTimes chunk = times(shape);
    return pipeline_times({&chunk, 1}).longest_path_s;
  });
  terms.stall_s = prompt_seconds(load, d, 1, slowest_s);
  add_further_prompts(load, d, slowest_s, terms.prompts);
  terms.prompts.all_s = prompt_seconds(load, d, d.dp, slowest_s);
  terms.stages = static_cast<double>(pipeline.stages.size());
  if (pipeline.front().engine().mixes_prompts) {
    // A stage computes a prompt beside the decodes of one micro-batch.
    const auto batches = static_cast<double>(micro_batches_of(d, std::llround(terms.requests)));
    const StepShape beside = decode_shape(load, terms.requests / batches, d);
    add_shared(terms, load, d, beside, slowest_s(beside), slowest_s);
  }
  terms.layers = terms.moe_layers = 0;
  const StepShape decode = decode_shape(load, terms.requests, d);
  for (const StepModel& stage : pipeline.stages) {
    terms.decode_assumed_s += stage.assumed_s(decode);
    terms.prefill_assumed_s +=
        prompt_seconds(load, d, 1, [&](const StepShape& shape) { return stage.assumed_s(shape); });
    terms.layers += stage.operators().launching_layers();
    terms.moe_layers += stage.operators().moe_layers;
  }
  return terms;
}

}  // namespace moecast
