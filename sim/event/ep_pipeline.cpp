#include "sim/event/ep_pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/core/statistics.h"
#include "models/plan/deployment_rules.h"
#include "models/plan/graph.h"
#include "models/plan/stages.h"
#include "sim/event/ep_answer.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/pipeline_schedule.h"
#include "sim/step/step_pipeline.h"

namespace moecast {
namespace {

void refuse(const Deployment& deployment, const Workload& workload, const EpOptions& options, bool whole_model) {
  if (!whole_model) throw InputError("pp", "a lone layer has no stages", "--pp 1, or --model");
  const std::pair<bool, const char*> others[] = {{deployment.offload.has_value(), "--offload"},
                                                 {workload.load.trace != nullptr, "a recorded routing"},
                                                 {options.orders.active(), "--correlation and --drift"},
                                                 {!options.slow_links.empty(), "--slow-link"},
                                                 {options.batches > 1, "--batches"}};
  for (const auto& [asked, what] : others) {
    if (asked) throw InputError("pp", fmt::format("stages are not executed beside {} yet", what), "leave out one");
  }
}

/// Sequences of a rank, rounded up.
struct OnRank {
  std::int64_t decodes = 0;
  std::int64_t prompts = 0;
};

OnRank on_rank(const Workload& w, int dp) {
  const auto share = [dp](std::int64_t sequences) { return (sequences + dp - 1) / dp; };
  switch (w.phase) {
    case Phase::prefill: return {0, share(w.batch)};
    case Phase::mixed: return {share(w.batch), share(w.prefill_batch)};
    default: return {share(w.batch), 0};
  }
}

/// The sequences of a micro-batch, of all ranks of a stage: the workload's in proportion to those of the fullest rank.
Workload part_of(const Workload& whole, const MicroBatch& part, const OnRank& all) {
  const auto share = [](std::int64_t sequences, std::int64_t own, std::int64_t of_all) {
    if (own == 0) return std::int64_t{0};
    const double exact = static_cast<double>(sequences) * static_cast<double>(own) / static_cast<double>(of_all);
    return std::max<std::int64_t>(1, std::llround(exact));
  };
  Workload w = whole;
  w.batch = whole.phase == Phase::prefill ? share(whole.batch, part.prompts, all.prompts)
                                          : share(whole.batch, part.decodes, all.decodes);
  w.prefill_batch = 0;
  if (whole.phase != Phase::mixed) return w;
  w.prefill_batch = share(whole.prefill_batch, part.prompts, all.prompts);
  if (part.prompts == 0) w.phase = Phase::decode;
  if (part.decodes == 0) {
    w.phase = Phase::prefill;
    w.batch = w.prefill_batch;
    w.context = w.prefix;
    w.prefill_batch = w.prefix = 0;
  }
  return w;
}

/// A stage with one kind of micro-batch.
struct StageSteps {
  Prediction prediction;
  std::vector<double> seconds;  ///< of each sample
};

class Pipeline {
 public:
  Pipeline(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
           const Deployment& deployment, const Workload& workload, const EpOptions& options, bool overlaps,
           const Predictor& analytic, const PipelineReport& closed)
      : machine_(machine),
        cluster_(cluster),
        workload_(workload),
        options_(options),
        overlaps_(overlaps),
        analytic_(analytic),
        all_(on_rank(workload, deployment.dp)),
        stage_(deployment) {
    stage_.pp = 1;
    stage_.micro_batches.reset();
    for (const PipelineReport::Stage& stage : closed.stages) {
      const StageLayers layers{static_cast<std::size_t>(stage.first_layer), static_cast<std::size_t>(stage.layers)};
      parts_.push_back(stage_architecture(architecture, layers));
    }
  }

  /// @return nullptr, or the stage that has no answer.
  const Prediction* run(const MicroBatch& kind, std::vector<StageSteps>& stages) const {
    const Workload work = part_of(workload_, kind, all_);
    for (std::size_t s = 0; s < parts_.size(); ++s) {
      stages.push_back(has_experts(parts_[s]) ? sampled(s, work) : closed(s, work));
      if (stages.back().prediction.status != Status::ok) return &stages.back().prediction;
    }
    return nullptr;
  }

  [[nodiscard]] std::size_t stages() const { return parts_.size(); }
  [[nodiscard]] std::vector<MicroBatch> kinds(const Deployment& deployment) const {
    return split_batch(all_.decodes, all_.prompts, micro_batches_of(deployment, all_.decodes + all_.prompts));
  }
  /// From each stage to the next, of such a micro-batch: what the closed form says of it alone.
  [[nodiscard]] std::vector<double> transfers(const MicroBatch& kind, const Architecture& architecture,
                                              Deployment deployment) const {
    deployment.micro_batches = 1;
    const Prediction alone = analytic_.predict(architecture, deployment, part_of(workload_, kind, all_));
    if (!alone.pipeline) throw InputError("pp", "what stages hand on has no answer: " + alone.reason);
    std::vector<double> seconds;
    for (const Seconds sent : alone.pipeline->transfers) seconds.push_back(sent.value());
    return seconds;
  }

 private:
  [[nodiscard]] EpOptions options_of(std::size_t stage) const {
    EpOptions own = options_;
    own.seed += stage * 2'000'003;
    own.slow_ranks.clear();
    const int ranks = stage_ranks(stage_);
    for (const auto& [rank, factor] : options_.slow_ranks) {
      if (rank / ranks == static_cast<int>(stage)) own.slow_ranks.emplace_back(rank % ranks, factor);
    }
    if (options_.progress) {
      own.progress = [this, stage](int done) {
        const auto of_all = static_cast<int>(stage) * options_.samples + done;
        options_.progress(of_all / static_cast<int>(parts_.size()));
      };
    }
    return own;
  }

  [[nodiscard]] StageSteps sampled(std::size_t stage, const Workload& work) const {
    EpOptions own = options_of(stage);
    StageSteps steps;
    steps.prediction =
        predict_ep_stage(machine_, cluster_, parts_[stage], stage_, work, own, overlaps_, &analytic_, &steps.seconds);
    return steps;
  }

  [[nodiscard]] StageSteps closed(std::size_t stage, const Workload& work) const {
    StageSteps steps;
    steps.prediction = analytic_.predict(parts_[stage], stage_, work);
    if (!steps.prediction.latency) return steps;
    double slow = 1;
    for (const auto& [rank, factor] : options_of(stage).slow_ranks) slow = std::max(slow, factor);
    steps.prediction.latency = *steps.prediction.latency * slow;
    steps.seconds.assign(static_cast<std::size_t>(options_.samples), steps.prediction.latency->value());
    return steps;
  }

  const GpuMachine& machine_;
  const Cluster& cluster_;
  const Workload& workload_;
  const EpOptions& options_;
  bool overlaps_;
  const Predictor& analytic_;
  OnRank all_;
  Deployment stage_;
  std::vector<Architecture> parts_;
};

void add(Factors& all, const Factors& one, double times) {
  all.all_to_all += one.all_to_all * times;
  all.routing_overhead += one.routing_overhead * times;
  all.memory_bandwidth += one.memory_bandwidth * times;
  all.compute += one.compute * times;
}

/// A micro-batch on its way through all stages: what it adds up to, and what its routing was like.
void add_path(const std::vector<StageSteps>& stages, const PipelineReport& report, double latency_s,
              Prediction& prediction) {
  double path = 0;
  double transfers = 0;
  double log_low = 0;
  double log_high = 0;
  double weights = 0;
  for (const Seconds sent : report.transfers) transfers += sent.value();
  for (const StageSteps& stage : stages) path += stage.prediction.latency->value();
  const double stretch = latency_s / (path + transfers);
  StepDistribution& d = *prediction.distribution;
  const StageSteps* slowest = &stages.front();
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const Prediction& one = stages[s].prediction;
    const double seconds = one.latency->value();
    log_low += seconds / path * std::log(*one.low / *one.latency);
    log_high += seconds / path * std::log(*one.high / *one.latency);
    add(prediction.factors, one.factors, stretch);
    prediction.origin = weakest(prediction.origin, one.origin);
    if (seconds > slowest->prediction.latency->value()) slowest = &stages[s];
    for (OperatorCost op : one.operators) {
      op.name = fmt::format("stage {}: {}", s, op.name);
      prediction.operators.push_back(std::move(op));
    }
    for (const std::string& warning : one.warnings) {
      if (std::ranges::find(prediction.warnings, warning) == prediction.warnings.end()) {
        prediction.warnings.push_back(warning);
      }
    }
    if (!one.distribution) continue;
    const auto weight = static_cast<double>(report.stages[s].layers);
    weights += weight;
    d.row_imbalance += weight * one.distribution->row_imbalance;
    d.port_imbalance += weight * one.distribution->port_imbalance;
    d.distinct_ratio += weight * one.distribution->distinct_ratio;
    d.dropped_ratio += weight * one.distribution->dropped_ratio;
    d.contended_layers += one.distribution->contended_layers;
  }
  for (double* mean : {&d.row_imbalance, &d.port_imbalance, &d.distinct_ratio, &d.dropped_ratio}) {
    *mean = weights > 0 ? *mean / weights : 0;
  }
  prediction.factors.all_to_all += Seconds(transfers * stretch);
  if (slowest->prediction.distribution) d.expert_balance = slowest->prediction.distribution->expert_balance;
  prediction.bottleneck = slowest->prediction.bottleneck;
  prediction.low = Seconds(latency_s * std::exp(log_low));
  prediction.high = Seconds(latency_s * std::exp(log_high));
  if (transfers > 0) {
    prediction.operators.push_back({"point_to_point", "stages.send", "pipeline",
                                    static_cast<double>(report.transfers.size()), Seconds(transfers), Origin::fitted});
  }
  if (const double waited = latency_s - path - transfers; waited > 0) {
    prediction.operators.push_back(
        {"pipeline", "waiting for other micro-batches", "pipeline", 1, Seconds(waited), prediction.origin});
  }
}

}  // namespace

Prediction predict_ep_pipeline(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                               const Deployment& asked, const Workload& workload, const EpOptions& options,
                               bool overlaps, const Predictor* analytic) {
  refuse(asked, workload, options, analytic != nullptr && !is_lone_block(architecture));
  if (!has_experts(architecture)) {
    throw InputError(architecture.name, "has no MoE layer", "the event engine of GPUs answers for MoE layers");
  }
  const Deployment deployment = with_attention_replicas(asked);
  const int ranks = stage_ranks(deployment) * deployment.pp;
  static_cast<void>(Topology(cluster, ranks, &machine.profile));  // refuses ranks that the cluster lacks
  for (const auto& [rank, factor] : options.slow_ranks) {
    if (rank < 0 || rank >= ranks) {
      throw InputError("slow rank", fmt::format("{} of {} ranks", rank, ranks), "ranks count from 0");
    }
  }
  Prediction prediction = analytic->predict(architecture, deployment, workload);
  if (!prediction.latency || !prediction.pipeline) return prediction;
  PipelineReport report = *prediction.pipeline;
  const double closed_low = *prediction.low / *prediction.latency;
  const double closed_high = *prediction.high / *prediction.latency;
  const Pipeline pipeline(machine, cluster, architecture, deployment, workload, options, overlaps, *analytic, report);
  const std::vector<MicroBatch> kinds = pipeline.kinds(deployment);
  std::vector<std::vector<StageSteps>> all(kinds.size());
  std::vector<std::size_t> kind_of(static_cast<std::size_t>(report.micro_batches), 0);
  std::size_t largest = 0;
  double longest = 0;
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    if (const Prediction* failed = pipeline.run(kinds[k], all[k]); failed != nullptr) {
      prediction.status = failed->status;
      prediction.reason = failed->reason;
      prediction.latency.reset();
      return prediction;
    }
    if (options.stop != nullptr && options.stop->load()) return prediction;
    double path = 0;
    for (const StageSteps& stage : all[k]) path += stage.prediction.latency->value();
    if (path > longest) largest = k;
    longest = std::max(longest, path);
    for (const std::size_t place : kinds[k].places) kind_of[place] = k;
  }
  std::vector<MicroBatchTimes> schedule(kind_of.size());
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    const MicroBatchTimes one{std::vector<double>(pipeline.stages(), 0.0),
                              pipeline.transfers(kinds[k], architecture, deployment)};
    for (const std::size_t place : kinds[k].places) schedule[place] = one;
    if (k != largest) continue;
    report.transfers.clear();
    for (const double sent : one.transfers) report.transfers.emplace_back(sent);
  }
  std::vector<double> steps;
  PipelineTimes sum;
  const auto samples = static_cast<std::size_t>(options.samples);
  for (std::size_t i = 0; i < samples; ++i) {
    for (std::size_t j = 0; j < schedule.size(); ++j) {
      for (std::size_t s = 0; s < pipeline.stages(); ++s) {
        schedule[j].stages[s] = all[kind_of[j]][s].seconds[(i + j) % samples];
      }
    }
    const PipelineTimes times = pipeline_times(schedule);
    steps.push_back(workload.phase == Phase::decode ? times.period_s : times.fill_drain_s);
    sum.fill_drain_s += times.fill_drain_s / static_cast<double>(samples);
    sum.period_s += times.period_s / static_cast<double>(samples);
    sum.fill_drain_bubble_ratio += times.fill_drain_bubble_ratio / static_cast<double>(samples);
    sum.period_bubble_ratio += times.period_bubble_ratio / static_cast<double>(samples);
  }
  report.fill_drain = Seconds(sum.fill_drain_s);
  report.period = Seconds(sum.period_s);
  report.fill_drain_bubble_ratio = sum.fill_drain_bubble_ratio;
  report.period_bubble_ratio = sum.period_bubble_ratio;
  for (std::size_t s = 0; s < report.stages.size(); ++s) {
    report.stages[s].latency = *all[largest][s].prediction.latency;
  }
  prediction.operators.clear();
  prediction.factors = {};
  if (deployment.ep == 1) prediction.factors.expert_parallel_efficiency_ratio = 1;
  std::erase_if(prediction.warnings, [](const std::string& text) { return !text.starts_with("pipeline stages"); });
  prediction.origin = Origin::measured;
  prediction.distribution = distribution_of(steps, options);
  prediction.latency = prediction.distribution->mean;
  add_path(all[largest], report, prediction.latency->value(), prediction);
  // No step with stages was measured, whatever is known of one without.
  prediction.low = std::min(*prediction.low, *prediction.latency * closed_low);
  prediction.high = std::max(*prediction.high, *prediction.latency * closed_high);
  prediction.warnings.emplace_back(
      "pipeline stages: each with routings of its own; what they hand on takes what the analytic engine says");
  if (samples < schedule.size()) {
    prediction.warnings.push_back(
        fmt::format("{} samples for {} micro-batches: some have the same routings", options.samples, schedule.size()));
  }
  prediction.throughput_tokens_per_s = step_tokens(workload) / prediction.latency->value();
  prediction.pipeline = std::move(report);
  return prediction;
}

}  // namespace moecast
