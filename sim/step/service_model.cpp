#include "sim/step/service_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "models/plan/speculation.h"
#include "sim/step/context_parallel.h"
#include "sim/step/pipeline_schedule.h"

namespace moecast {
namespace {

constexpr double kUsualChunk = kUsualBatchedTokens;  ///< tokens of prompts in a step
constexpr double kLeastPart = 0.05;                  ///< of a second prompt beside the first, that says what it takes
/// Host part of a first token: of a model without experts, over that of one with experts. It does not grow with layers:
/// at few requests DeepSeek's 61 take 0.12 to 0.25 s beyond the kernels, Qwen3-235B's 94 take 0.11 to 0.20 s.
constexpr double kDenseShare = 0.25;
constexpr int kRounds = 300;
constexpr int kFreeRounds = 30;  ///< then half-way only, where rounds would go back and forth
constexpr double kClose = 1e-10;

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

double stall_of(const ServiceTerms& t) { return t.stall_s.value_or(t.prefill_s); }

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
template <class Seconds>
void add_shared(ServiceTerms& terms, const ServiceLoad& load, const Deployment& d, const StepShape& decode,
                const Seconds& seconds) {
  const double decode_s = seconds(decode);
  const auto shared = [&](int replicas, double alone_s) {
    const double added_s = prompt_seconds(load, d, replicas, [&](const StepShape& chunk) {
      return seconds(mixed_shape(decode, chunk, replicas)) - decode_s;
    });
    return std::clamp(alone_s - added_s, 0.0, alone_s);
  };
  terms.shared_s = shared(1, stall_of(terms));
  if (d.dp > 1) terms.prompts.shared_s = shared(d.dp, terms.prompts.all_s);
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

/// Of a step that is full of prompts.
double full_stall_s(const ServiceTerms& t) {
  const double prompt = t.prompts.replicas > 1 ? t.prompts.all_s : stall_of(t);
  return prompt * t.prompts.of_several(t.prompts.most);
}

double full_shared_s(const ServiceTerms& t) { return t.prompts.replicas > 1 ? t.prompts.shared_s : t.shared_s; }

/// What prompts take of those that generate.
struct Stalls {
  double prompt_s = 0;    ///< of the prompts that are computed together, each time
  double ahead_s = 0;     ///< that a prompt ahead takes
  double shared_s = 0;    ///< of that: weights that the step reads anyhow
  double together = 1;    ///< prompts, each time
  double held_steps = 0;  ///< for which a prompt waits until replicas of attention have one each
};

/// Of a request that generates: prompts of others lengthen as many steps as it takes to compute them, at most all.
double mean_step_s(const ServiceTerms& t, const StepMix& mix, double together) {
  const double others_a_second = mix.prompts_a_second * others(t) / (others(t) + 1);
  const double come = others_a_second * mix.decode_s;
  const double left = together - others_a_second * mix.stall_s;
  return mix.decode_s + (left > come ? come / left : 1) * mix.stall_s;
}

/// Prompts come as requests end, and those of one step are computed together, as far as a step takes them; an engine
/// may hold them back until every replica of attention has one, for some steps at most.
Stalls stalls_of(const ServiceTerms& t, const StepMix& mix) {
  Stalls stalls{stall_of(t), stall_of(t)};
  const int dp = t.prompts.replicas;
  stalls.together = std::min(mix.together(), dp * t.prompts.most);
  if (t.prompts.wait_steps > 0 && stalls.together < dp && others(t) > 0) {
    const double arriving = mix.prompts_a_second * mix.decode_s;
    const double held = std::min(t.prompts.wait_steps, (dp - stalls.together) / arriving);
    stalls.together += arriving * held;
    // The first of them waits all of it, the others come meanwhile.
    stalls.held_steps = held * (1 + (stalls.together - 1) / 2) / stalls.together;
  }
  const double replicas = std::min<double>(stalls.together, dp);
  const double spread = dp > 1 ? (replicas - 1) / (dp - 1) : 0;
  if (dp > 1) stalls.ahead_s = stall_of(t) + (t.prompts.all_s - stall_of(t)) * spread;
  stalls.shared_s = t.shared_s + (t.prompts.shared_s - t.shared_s) * spread;
  stalls.prompt_s = stalls.ahead_s * t.prompts.of_several(std::max(1.0, stalls.together / dp));
  return stalls;
}

/// From one request of a client to the next, without a pause: how long it is says how many prompts come a second, and
/// these say how long it is.
class Cycle {
 public:
  Cycle(const ServiceTerms& terms, const EngineService& law) : t_(terms), law_(law) {}

  ServiceTimes solve() {
    if (others(t_) <= 0) return at(std::numeric_limits<double>::infinity());
    // Excess of what follows from a length over the length: falls as it grows. Illinois' method on its logarithm.
    const auto excess = [this](double log_s, ServiceTimes& times) {
      times = at(std::exp(log_s));
      return std::log(times.ttft_s + (t_.output - 1) * times.tpot_s) - log_s;
    };
    ServiceTimes times;
    double low = std::log(t_.prefill_s + (t_.output - 1) * (decode_s(0) / t_.tokens_a_step)) - 1;
    double above = excess(low, times);
    double high = low + std::max(1.0, above);
    double below = excess(high, times);
    while (below > 0) {
      low = high;
      above = below;
      high += std::max(1.0, below);
      below = excess(high, times);
    }
    int side = 0;
    for (int round = 0; round < kRounds && high - low > kClose; ++round) {
      const double middle = (low * below - high * above) / (below - above);
      const double found = excess(middle, times);
      if (std::abs(found) < kClose) break;
      if (found > 0) {
        low = middle;
        above = found;
        if (side > 0) below /= 2;
        side = 1;
      } else {
        high = middle;
        below = found;
        if (side < 0) above /= 2;
        side = -1;
      }
    }
    return times;
  }

 private:
  /// A step in which that share of the others generates too.
  [[nodiscard]] double decode_s(double generating) const {
    FewerDecodes above{t_.requests, t_.decode_s};
    const double requests = t_.requests - others(t_) * (1 - generating) / t_.prompts.replicas;
    double kernels = above.seconds;
    for (const FewerDecodes& below : t_.fewer) {
      if (requests >= above.requests || below.requests <= 0) break;
      const double share = std::max(0.0, (requests - below.requests) / (above.requests - below.requests));
      kernels = below.seconds + share * (above.seconds - below.seconds);
      above = below;
    }
    return law_.kernel_factor * kernels + law_.layer_s * t_.layers + law_.step_s * t_.stages +
           law_.request_s * requests;
  }

  /// Of the others in flight, a request that generates meets the share that generate too.
  ServiceTimes at(double cycle_s) {
    ServiceTimes times;
    times.generating = generating_;
    StepMix mix;
    mix.prompts_a_second = (others(t_) + 1) / cycle_s;
    mix.stall_s = stall_s_;
    Stalls stalls;
    for (int round = 0; round < kRounds; ++round) {
      const double before = mix.stall_s;
      mix.decode_s = decode_s(times.generating);
      stalls = stalls_of(t_, mix);
      mix.stall_s = law_.stall_share * (stalls.prompt_s - stalls.shared_s);
      times.tpot_s = mean_step_s(t_, mix, stalls.together) / t_.tokens_a_step;
      const double share = others(t_) > 0 ? std::min(1.0, (t_.output - 1) * times.tpot_s / cycle_s) : 1;
      const bool found =
          std::abs(share - times.generating) < kClose && std::abs(before - mix.stall_s) < kClose * before;
      times.generating = share;
      if (found) break;
    }
    times.ttft_s = ttft_s(mix, stalls, times.tpot_s);
    generating_ = times.generating;
    stall_s_ = mix.stall_s;
    return times;
  }

  [[nodiscard]] double ttft_s(const StepMix& mix, const Stalls& stalls, double tpot_s) const {
    // Who comes with all others waits for half of them, and for the steps that they take.
    const double first_wave = (t_.requests - 1) / 2 *
                              (stalls.ahead_s * t_.prompts.of_several(t_.prompts.most) + mix.decode_s) /
                              t_.prompts.most;
    double seconds = law_.first_token_s * (t_.moe_layers > 0 ? 1 : kDenseShare) + mix.decode_s +
                     law_.prefill_factor * (t_.prefill_s + stalls.prompt_s - stalls.ahead_s + t_.burst * first_wave);
    if (others(t_) <= 0) return seconds;
    seconds += mix.rest_s() + (stalls.held_steps + t_.wait_steps) * tpot_s * t_.tokens_a_step;
    // Steps that are full of prompts take no more of them: whoever is in flight beyond that waits for the first token.
    const double full_s = mix.decode_s + law_.stall_share * (full_stall_s(t_) - full_shared_s(t_));
    const double least_s = (others(t_) + 1) * full_s / (t_.prompts.replicas * t_.prompts.most);
    return std::max(seconds, least_s - (t_.output - 1) * tpot_s);
  }

  const ServiceTerms& t_;
  const EngineService& law_;
  double generating_ = 1;  ///< of the last length: the next one is near
  double stall_s_ = 0;
};

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
  if (model.engine().mixes_prompts) add_shared(terms, load, d, decode, kernels);
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
    add_shared(terms, load, d, decode_shape(load, terms.requests / batches, d), slowest_s);
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

ServiceTimes service_times(const ServiceTerms& t, const EngineService& law) {
  ServiceTimes times = Cycle(t, law).solve();
  // Little's law: whoever waits for room in the cache is served as others leave.
  if (t.queued > 0) times.ttft_s += t.queued / (others(t) + 1) * (times.ttft_s + (t.output - 1) * times.tpot_s);
  return times;
}

double prefill_share(const ServiceTerms& t, double tpot) {
  const double in_flight = others(t) + 1;
  const Stalls stalls = stalls_of(t, {in_flight / (t.output * tpot), t.decode_s, stall_of(t)});
  return in_flight / stalls.together * stalls.prompt_s / (t.output * tpot);
}

}  // namespace moecast
