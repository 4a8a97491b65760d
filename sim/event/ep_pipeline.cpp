#include "sim/event/ep_pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/core/statistics.h"
#include "models/plan/graph.h"
#include "models/plan/stages.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/pipeline_schedule.h"
#include "sim/step/step_pipeline.h"

namespace moecast {
namespace {

/// Samples of neighbouring micro-batches lie so far apart: each has routings of its own.
constexpr std::size_t kPlaceStride = 7;

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

bool has_experts(const Architecture& architecture) {
  return std::ranges::any_of(architecture.decoder, [](const Layer& layer) {
    return std::ranges::any_of(layer.blocks, [](const Block& b) { return std::holds_alternative<MoeBlock>(b); });
  });
}

/// The sequences of a micro-batch, of all ranks of a stage.
Workload part_of(const Workload& whole, const MicroBatch& part, int dp) {
  Workload w = whole;
  w.batch = (w.phase == Phase::prefill ? part.prompts : part.decodes) * dp;
  w.prefill_batch = 0;
  if (whole.phase != Phase::mixed) return w;
  w.prefill_batch = part.prompts * dp;
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
           const Deployment& deployment, const Workload& workload, const EpOptions& options, const Predictor& analytic,
           const PipelineReport& closed)
      : machine_(machine),
        cluster_(cluster),
        workload_(workload),
        options_(options),
        analytic_(analytic),
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
    const Workload work = part_of(workload_, kind, stage_.dp);
    for (std::size_t s = 0; s < parts_.size(); ++s) {
      stages.push_back(has_experts(parts_[s]) ? sampled(s, work) : closed(s, work));
      if (stages.back().prediction.status != Status::ok) return &stages.back().prediction;
    }
    return nullptr;
  }

  [[nodiscard]] std::size_t stages() const { return parts_.size(); }

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
    const EpOptions own = options_of(stage);
    const EpPlan plan = plan_ep(machine_, cluster_, parts_[stage], stage_, work, own, &analytic_);
    StageSteps steps;
    steps.prediction = predict_plan(machine_, parts_[stage], plan, work, own, &analytic_, &steps.seconds);
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
  const Predictor& analytic_;
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
  prediction.factors.expert_parallel_efficiency_ratio = slowest->prediction.factors.expert_parallel_efficiency_ratio;
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
                               const Predictor* analytic) {
  refuse(asked, workload, options, analytic != nullptr && !is_lone_block(architecture));
  const Deployment deployment = with_attention_replicas(architecture, asked);
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
  const Pipeline pipeline(machine, cluster, architecture, deployment, workload, options, *analytic, report);
  const std::int64_t dp = deployment.dp;
  const auto on_rank = [dp](std::int64_t sequences) { return (sequences + dp - 1) / dp; };
  const std::int64_t decodes = workload.phase == Phase::prefill ? 0 : on_rank(workload.batch);
  const std::int64_t prompts = workload.phase == Phase::decode    ? 0
                               : workload.phase == Phase::prefill ? on_rank(workload.batch)
                                                                  : on_rank(workload.prefill_batch);
  const std::vector<MicroBatch> kinds =
      split_batch(decodes, prompts, micro_batches_of(deployment, decodes + prompts));
  std::vector<std::vector<StageSteps>> all(kinds.size());
  std::vector<std::size_t> kind_of(static_cast<std::size_t>(report.micro_batches), 0);
  std::size_t largest = 0;
  double longest = 0;
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    if (const Prediction* failed = pipeline.run(kinds[k], all[k]); failed != nullptr) return *failed;
    if (options.stop != nullptr && options.stop->load()) return prediction;
    double path = 0;
    for (const StageSteps& stage : all[k]) path += stage.prediction.latency->value();
    if (path > longest) largest = k;
    longest = std::max(longest, path);
    for (const std::size_t place : kinds[k].places) kind_of[place] = k;
  }
  MicroBatchTimes one;
  for (const Seconds sent : report.transfers) one.transfers.push_back(sent.value());
  one.stages.assign(pipeline.stages(), 0);
  std::vector<MicroBatchTimes> schedule(kind_of.size(), one);
  std::vector<double> steps;
  PipelineTimes sum;
  const auto samples = static_cast<std::size_t>(options.samples);
  for (std::size_t i = 0; i < samples; ++i) {
    for (std::size_t j = 0; j < schedule.size(); ++j) {
      for (std::size_t s = 0; s < pipeline.stages(); ++s) {
        schedule[j].stages[s] = all[kind_of[j]][s].seconds[(i + kPlaceStride * j) % samples];
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
  prediction.warnings.clear();
  prediction.origin = Origin::measured;
  prediction.distribution = distribution_of(steps, options);
  prediction.latency = prediction.distribution->mean;
  add_path(all[largest], report, prediction.latency->value(), prediction);
  prediction.warnings.emplace_back(
      "pipeline stages: each with routings of its own; what they hand on takes what the analytic engine says");
  prediction.throughput_tokens_per_s = step_tokens(workload) / prediction.latency->value();
  prediction.pipeline = std::move(report);
  return prediction;
}

}  // namespace moecast
