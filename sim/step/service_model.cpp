#include "sim/step/service_model.h"

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "sim/fit/least_squares.h"
#include "sim/step/context_parallel.h"
#include "sim/step/pipeline_schedule.h"

namespace moecast {
namespace {

constexpr double kUsualChunk = 8192;  ///< tokens of a chunk of a prompt
/// Host part of a first token: of a model without experts, over that of one with experts. It does not grow with layers:
/// at few requests DeepSeek's 61 take 0.12 to 0.25 s beyond the kernels, Qwen3-235B's 94 take 0.11 to 0.20 s.
constexpr double kDenseShare = 0.25;
constexpr double kQueue = 10;  ///< requests that `queue_share` counts by
constexpr int kParameters = 7;
constexpr double kFirstTokenWeight = 0.3;
constexpr double kEnoughRows = 200;
constexpr std::size_t kLeastServingRows = 10;

using Values = std::array<double, kParameters>;
constexpr Values kPrior{1, 30e-6, 0.5e-3, 1, 1, 0.5, 0.12};
/// Standard deviations of ln.
constexpr Values kWidth{0.25, 1, 1, 0.5, 0.15, 0.3, 0.5};
/// How far an engine may be from all, of the widths: kernels are much the same, hosts are its own.
constexpr Values kOfAnEngine{0.3, 0.3, 1, 0.3, 0.3, 1, 1};
constexpr Values kOfAll{1, 1, 1, 1, 1, 1, 1};

EngineService law_of(const Values& v) { return {v[0], v[1], v[2], v[3], v[4], v[5], v[6]}; }

Values fit(std::span<const MeasuredService> rows, const Values& prior, const Values& narrow) {
  const double weight = std::sqrt(kEnoughRows / std::max(kEnoughRows, static_cast<double>(rows.size())));
  const auto put = [&](const Eigen::VectorXd& q) {
    Values values{};
    for (int i = 0; i < kParameters; ++i) {
      values[static_cast<std::size_t>(i)] = prior[static_cast<std::size_t>(i)] * std::exp(std::clamp(q(i), -8.0, 8.0));
    }
    return values;
  };
  LeastSquaresProblem problem;
  problem.residuals = [&](const Eigen::VectorXd& q) {
    const EngineService law = law_of(put(q));
    Eigen::VectorXd r(2 * static_cast<Eigen::Index>(rows.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto at = static_cast<Eigen::Index>(2 * i);
      r(at) = weight * std::log(tpot_s(rows[i].terms, law) / rows[i].tpot_s);
      r(at + 1) = kFirstTokenWeight * weight * std::log(ttft_s(rows[i].terms, law) / rows[i].ttft_s);
    }
    return r;
  };
  problem.penalties = [&](const Eigen::VectorXd& q) -> Eigen::VectorXd {
    Eigen::VectorXd p(kParameters);
    for (int i = 0; i < kParameters; ++i)
      p(i) = q(i) / (kWidth[static_cast<std::size_t>(i)] * narrow[static_cast<std::size_t>(i)]);
    return p;
  };
  problem.soft_scale = 0.15;
  problem.most_evaluations = 80;
  return put(fit_least_squares(problem, Eigen::VectorXd::Zero(kParameters)));
}

}  // namespace

namespace {

StepShape decode_shape(const ServiceLoad& load, double requests, const Deployment& d) {
  StepShape decode;
  decode.decodes = requests;
  decode.decode_kv = load.prompt + load.output / 2;
  decode = context_share(decode, d.cp);
  decode.rows = requests;
  decode.expert_rows = requests * d.dp;
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
  terms.requests = std::max(1.0, load.concurrency / model.deployment().dp);
  terms.output = load.output;
  terms.layers = model.operators().layers;
  terms.moe_layers = model.operators().moe_layers;
  return terms;
}

double stall_of(const ServiceTerms& t) { return t.stall_s.value_or(t.prefill_s); }

double stalls_of(const ServiceTerms& t) { return t.stalls.value_or(t.requests - 1); }

/// What prompts of others take of those that generate. Replicas of attention step together. Prompts come as requests
/// end, `load.concurrency / load.output` a step in the mean, and those of one step are computed together; an engine may
/// hold them back until every replica has one, for some steps at most.
/// @param alone, together  a prompt on one replica, on all of them.
void set_stalls(ServiceTerms& terms, const ServiceLoad& load, const StepModel& model, double alone, double together) {
  const int dp = model.deployment().dp;
  if (dp == 1) return;
  const double arriving = load.concurrency / std::max(1.0, load.output);
  double prompts = arriving / -std::expm1(-arriving);  // of a step that has any
  if (const double most = model.engine().prompts_wait_steps; most > 0 && prompts < dp && load.concurrency > 1) {
    const double held = std::min(most, (dp - 1) / arriving);
    prompts = std::max(prompts, 1 + arriving * held);
    // The first of them waits all of it, the others come meanwhile.
    terms.held_steps = held * (1 + (prompts - 1) / 2) / prompts;
  }
  const double replicas = std::min<double>(prompts, dp);
  terms.ahead_s = alone + (together - alone) * (replicas - 1) / (dp - 1);
  terms.stall_s = std::max(1.0, prompts / dp) * *terms.ahead_s;
  terms.stalls = (std::max(1.0, load.concurrency) - 1) / prompts;
}

}  // namespace

ServiceTerms service_terms(const StepModel& model, const ServiceLoad& load) {
  ServiceTerms terms = terms_of(model, load);
  const StepShape decode = decode_shape(load, terms.requests, model.deployment());
  // A prompt of its own; what stalls those that generate are prompts of all replicas.
  const StepShape prefill = prefill_shape(load, model.deployment(), 1);
  terms.decode_s = sum(model.times(decode));
  terms.prefill_s = chunks_of(load) * sum(model.times(prefill));
  const StepShape together = prefill_shape(load, model.deployment(), model.deployment().dp);
  set_stalls(terms, load, model, terms.prefill_s, chunks_of(load) * sum(model.times(together)));
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
  std::vector<MicroBatchTimes> schedule;
  const std::int64_t requests = std::llround(terms.requests);
  for (const MicroBatch& kind : split_batch(requests, 0, micro_batches_of(d, requests))) {
    const MicroBatchTimes one = times(decode_shape(load, static_cast<double>(kind.decodes), d));
    schedule.insert(schedule.end(), kind.places.size(), one);
  }
  terms.decode_s = pipeline_times(schedule).period_s;
  const MicroBatchTimes chunk = times(prefill_shape(load, d, 1));
  const MicroBatchTimes stalling = times(prefill_shape(load, d, d.dp));
  terms.prefill_s = chunks_of(load) * pipeline_times({&chunk, 1}).longest_path_s;
  terms.stall_s = chunks_of(load) * std::ranges::max(stalling.stages);
  set_stalls(terms, load, pipeline.front(), chunks_of(load) * std::ranges::max(chunk.stages), *terms.stall_s);
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

double tpot_s(const ServiceTerms& t, const EngineService& law) {
  return law.kernel_factor * t.decode_s + law.layer_s * t.layers + law.step_s * t.stages +
         law.stall_share * stalls_of(t) / t.output * stall_of(t);
}

double ttft_s(const ServiceTerms& t, const EngineService& law) {
  const double ahead = law.queue_share * (t.requests - 1) / kQueue;
  return law.first_token_s * (t.moe_layers > 0 ? 1 : kDenseShare) +
         law.prefill_factor * (t.prefill_s + ahead * t.ahead_s.value_or(stall_of(t))) +
         (1 + t.held_steps) * tpot_s(t, law);
}

double prefill_share(const ServiceTerms& t, double tpot) {
  return (stalls_of(t) + 1) * stall_of(t) / (t.output * tpot);
}

std::map<std::string, EngineService> fit_services(std::span<const MeasuredService> measured) {
  const Values all = fit(measured, kPrior, kOfAll);
  std::map<std::string, std::vector<MeasuredService>> engines;
  for (const MeasuredService& row : measured) engines[row.engine].push_back(row);
  std::map<std::string, EngineService> laws{{"", law_of(all)}};
  for (const auto& [engine, rows] : engines) {
    laws[engine] = law_of(rows.size() >= kLeastServingRows ? fit(rows, all, kOfAnEngine) : all);
  }
  return laws;
}

}  // namespace moecast
