#include "sim/event/ep_answer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "models/core/statistics.h"
#include "models/plan/context_limit.h"
#include "models/plan/graph.h"
#include "models/plan/memory.h"
#include "sim/analytic/analytic.h"
#include "sim/step/stage_answer.h"

namespace moecast {
namespace {

/// Means over all samples of one kind of layer, seconds of the whole step.
struct Means {
  double step = 0, dispatch = 0, combine = 0, kernels = 0, mean_kernels = 0;
};

Means means_of(const std::vector<StepSample>& samples) {
  Means m;
  const auto n = static_cast<double>(samples.size());
  for (const StepSample& s : samples) {
    m.step += s.step_s / n;
    m.dispatch += s.dispatch_s / n;
    m.combine += s.combine_s / n;
    m.kernels += s.kernels_s / n;
    m.mean_kernels += s.mean_kernels_s / n;
  }
  return m;
}

/// Half widths, ln, of a sum of pieces whose errors are correlated by kKindCorrelation.
struct Interval {
  double squares = 0, sum = 0;
  void add(double seconds, double half_width) {
    squares += std::pow(seconds * half_width, 2);
    sum += seconds * half_width;
  }
  [[nodiscard]] double seconds() const {
    return std::sqrt((1 - kKindCorrelation) * squares + kKindCorrelation * sum * sum);
  }
};

/// Where the mean rank's time in experts goes: what a single row costs beyond its expert's weights is launch, the rest
/// is shared out as the least times that the datasheet allows for bytes and arithmetic are.
struct ExpertShares {
  double memory = 0, compute = 0, launch = 0;
};

ExpertShares share_experts(const EpPlan& plan, const EpStudy& study, const DeviceLimits& device, double seconds,
                           double distinct_ratio) {
  const EpLayer& layer = study.layer;
  const double ranks = plan.deployment.ep;
  const double expert = layer.matrices * static_cast<double>(layer.hidden * layer.width);
  const double rows = layer.tokens_per_rank * study.study.batches * static_cast<double>(layer.top_k);
  const double touched = distinct_ratio * static_cast<double>(layer.experts) / ranks;
  const double layers = study.study.layers;
  const auto format = kernel_format(to_string(layer.dtype) == "bf16" ? "bfloat16" : to_string(layer.dtype));
  const double memory =
      layers * touched * expert * plan.bytes_per_weight * study.study.chunks * study.study.batches / device.bandwidth;
  const double compute = layers * 2 * rows * expert / (device.peak_bf16 * (format ? format->rate : 1));
  const double calls = layers * study.study.chunks * study.study.batches;
  const double weights = expert * plan.bytes_per_weight / device.bandwidth;
  // A rank that gathered all tokens moves those of others too, however few are its own.
  const bool gathered = sees_all_rows(layer.exchange);
  const double alone = gathered ? 0 : calls * std::max(0.0, study.study.costs.experts_s({1, 1, 1}) - weights);
  const double launch = std::min(seconds, alone);
  const double both = memory + compute;
  if (!(both > 0)) return {0, 0, seconds};
  return {(seconds - launch) * memory / both, (seconds - launch) * compute / both, launch};
}

/// @param slow  factor on the kernels of the slowest rank.
void add_operators(const EpStudy& study, const Means& m, double slow, Prediction& prediction) {
  const double layers = study.study.layers;
  const double parts = study.study.batches;
  const MoeLayerCosts& costs = study.study.costs;
  const double fixed = slow * (costs.before_s + costs.router_s + costs.shared_s) * layers * parts;
  for (const EpPiece& piece : study.pieces) {
    double seconds = slow * piece.seconds * layers * parts;
    OperatorKind kind = OperatorKind::gemm;
    if (piece.stage == "dispatch") {
      seconds = m.dispatch;
      kind = OperatorKind::all_to_all_dispatch;
    } else if (piece.stage == "combine") {
      seconds = m.combine;
      kind = OperatorKind::all_to_all_combine;
    } else if (piece.stage == "experts") {
      seconds = std::max(0.0, m.kernels - fixed);
      kind = OperatorKind::fused_moe;
    }
    const std::string name = study.name + ": " + piece.kernel +
                             (piece.substitution.empty() ? std::string() : " (" + piece.substitution + ")");
    prediction.operators.push_back(
        {std::string(to_string(kind)), name, piece.stage, layers, Seconds(seconds), piece.origin});
  }
}

/// Weights of shadowed experts on their way to all ranks: of an exchange's links, so as sure as an exchange.
void add_shadows(const EpStudy& study, const Means& m, Prediction& prediction, Interval& low, Interval& high) {
  if (study.study.shadowed_experts == 0) return;
  const auto exchange = std::ranges::find(study.pieces, "dispatch", &EpPiece::stage);
  if (exchange == study.pieces.end()) return;
  const double waited = std::max(0.0, m.step - m.kernels - m.dispatch - m.combine);
  prediction.operators.push_back({std::string(to_string(OperatorKind::weight_transfer)),
                                  study.name + ": shadowed experts sent to every rank", "shadow",
                                  static_cast<double>(study.study.layers), Seconds(waited), exchange->origin});
  low.add(waited, -exchange->log_low);
  high.add(waited, exchange->log_high);
}

void add_around_warning(const StepAround& around, bool asked, Prediction& prediction) {
  if (!asked || !around.missing.empty()) {
    prediction.warnings.push_back(
        "the time is that of the MoE layers: attention, norms, dense layers and head are not in it" +
        (around.missing.empty() ? std::string() : " (" + around.missing + ")"));
    return;
  }
  prediction.warnings.emplace_back("attention, norms, dense layers, head and host take what the analytic engine says");
  for (const std::string& warning : around.warnings) {
    if (std::ranges::find(prediction.warnings, warning) == prediction.warnings.end()) {
      prediction.warnings.push_back(warning);
    }
  }
}

/// @param waits_s  for the host, of the mean step. @param slow  factor on the kernels of the slowest rank.
void add_around(const StepAround& around, double waits_s, double slow, Prediction& prediction, Interval& low,
                Interval& high) {
  for (OperatorCost op : around.operators) {
    // The analytic engine's waiting is that for other kernels; fuller ranks hide more of it.
    if (op.name == kLaunchWait && around.launched_s > 0) op.latency = Seconds(waits_s);
    if (op.name != kLaunchWait && op.name != kPreparation) op.latency = op.latency * slow;
    prediction.operators.push_back(op);
    prediction.origin = weakest(prediction.origin, op.origin);
    low.add(op.latency.value(), op.half_width.value_or(0));
    high.add(op.latency.value(), op.half_width.value_or(0));
  }
  prediction.factors.all_to_all += around.factors.all_to_all;
  prediction.factors.memory_bandwidth += around.factors.memory_bandwidth;
  prediction.factors.compute += around.factors.compute;
}

MemoryPerRank memory_of(const Profile& profile, const Architecture& architecture, const Deployment& deployment,
                        const Workload& workload) {
  const MemoryBreakdown needed = memory_per_rank(architecture, deployment, workload);
  MemoryPerRank memory{needed.weights, needed.kv_cache, needed.activations, needed.workspace, std::nullopt};
  if (const HardwareQuantity* capacity = profile.find("memory_capacity")) memory.capacity = Bytes(capacity->value);
  return memory;
}

/// On the time of kernels, of the slowest rank.
double slowest_factor(const EpPlan& plan) {
  const std::vector<double>& factors = plan.studies.front().study.options.slowdown;
  return factors.empty() ? 1 : *std::ranges::max_element(factors);
}

std::vector<std::vector<StepSample>> sample_all(const EpPlan& plan, const Workload& workload,
                                                const EpOptions& options) {
  if (const auto& trace = workload.load.trace) return sample_trace(plan, *trace, options.samples, options);
  std::vector<std::vector<StepSample>> all;
  for (std::size_t i = 0; i < plan.studies.size(); ++i) {
    all.push_back(run_study(plan.studies[i].study, options.seed + i * 1'000'003, options.samples, options.threads,
                            options.progress, options.stop));
  }
  return all;
}

/// Kernels and exchanges of each sampled step; the host is not in it.
std::vector<double> device_seconds(const EpPlan& plan, const std::vector<std::vector<StepSample>>& all, int samples) {
  std::vector<double> steps(static_cast<std::size_t>(samples), plan.around.outside_s * slowest_factor(plan));
  for (const std::vector<StepSample>& of_kind : all) {
    for (std::size_t s = 0; s < steps.size(); ++s) steps[s] += of_kind[s].step_s;
  }
  return steps;
}

std::vector<double> steps_of(const EpPlan& plan, const std::vector<std::vector<StepSample>>& all, int samples) {
  std::vector<double> steps = device_seconds(plan, all, samples);
  for (double& step : steps) step = step_seconds(plan.around, step);
  return steps;
}

/// Says what was fetched. @return seconds that the mean step takes longer than the same routings with all experts held.
double add_offload(const EpPlan& plan, const Workload& workload, const EpOptions& options,
                   const std::vector<std::vector<StepSample>>& all, double mean_s, Prediction& prediction,
                   Interval& low, Interval& high) {
  if (!plan.deployment.offload) return 0;
  const ExpertOffload& asked = *plan.deployment.offload;
  OffloadUse& use = prediction.offload.emplace();
  use.policy = asked.policy;
  use.overlap = asked.overlap;
  use.experts = use.resident = *asked.resident;
  use.host = offloaded_bytes(plan.offloaded);
  if (plan.offloaded.empty()) return 0;
  use.experts = plan.offloaded.front().experts;
  use.resident = plan.offloaded.front().resident;
  use.expert = plan.offloaded.front().expert;
  use.link = plan.link->bandwidth;
  use.link_origin = plan.link->origin;
  EpPlan held = plan;
  double used = 0;
  double missed = 0;
  double layers = 0;
  for (std::size_t i = 0; i < plan.studies.size(); ++i) {
    const ExpertFetch& fetch = plan.studies[i].study.fetch;
    held.studies[i].study.fetch = {};
    if (!fetch.active()) continue;
    layers += plan.studies[i].study.layers;
    for (const StepSample& sample : all[i]) {
      used += sample.used_experts;
      missed += sample.missed_experts;
      use.missed += sample.fetched / options.samples;
      use.fetched += Bytes(sample.fetched * fetch.expert_bytes / options.samples);
      use.transfer +=
          Seconds(sample.fetched * (fetch.start_s + fetch.expert_bytes / fetch.bandwidth) / options.samples);
    }
  }
  if (layers > 0) use.missed /= layers;
  if (used > 0) use.hit_ratio = 1 - missed / used;
  EpOptions again = options;
  again.progress = {};
  const double waited =
      std::max(0.0, mean_s - mean(steps_of(held, sample_all(held, workload, again), options.samples)));
  use.exposed = Seconds(waited);
  prediction.operators.push_back({std::string(to_string(OperatorKind::weight_transfer)), "experts that are fetched",
                                  "offload", layers, use.exposed, use.link_origin});
  prediction.origin = weakest(prediction.origin, use.link_origin);
  low.add(waited, std::log(plan.link->high / plan.link->bandwidth));
  high.add(waited, std::log(plan.link->bandwidth / plan.link->low));
  if (!workload.load.trace) {
    prediction.warnings.emplace_back(
        "hit rate of experts: steps are taken to choose independently of each other; text that stays with its experts "
        "hits more often");
  }
  return waited;
}

}  // namespace

StepDistribution distribution_of(const std::vector<double>& steps, const EpOptions& options) {
  StepDistribution d;
  d.samples = options.samples;
  d.seed = options.seed;
  d.mean = Seconds(mean(steps));
  d.p50 = Seconds(quantile(steps, 0.5));
  d.p90 = Seconds(quantile(steps, 0.9));
  d.p99 = Seconds(quantile(steps, 0.99));
  d.row_imbalance = d.port_imbalance = d.distinct_ratio = 0;
  return d;
}

Prediction predict_plan(const GpuMachine& machine, const Architecture& architecture, const EpPlan& plan,
                        const Workload& workload, EpOptions options, const Predictor* analytic,
                        std::vector<double>* of_stage) {
  Prediction prediction;
  prediction.memory = memory_of(machine.profile, architecture, plan.deployment, workload);
  const ParameterCount count = count_parameters(architecture);
  prediction.total_parameters = count.total;
  prediction.active_parameters = count.active;
  prediction.warnings = plan.notes;
  if (!is_lone_block(architecture)) add_around_warning(plan.around, analytic != nullptr, prediction);
  if (of_stage == nullptr && prediction.memory.capacity && prediction.memory.total() > *prediction.memory.capacity) {
    prediction.status = Status::does_not_fit;
    prediction.reason = "needs " + format_bytes(prediction.memory.total()) + " a rank, " +
                        format_bytes(*prediction.memory.capacity) + " are there";
    return prediction;
  }

  if (const std::string problem = beyond_context(architecture, longest_sequence(workload)); !problem.empty()) {
    prediction.status = Status::outside_range;
    prediction.reason = problem;
    return prediction;
  }
  if (!plan.link && std::ranges::any_of(plan.offloaded, &OffloadedLayers::runs)) {
    require_link(prediction);
    return prediction;
  }

  if (const auto& trace = workload.load.trace) {
    const std::int64_t windows = trace_windows(*trace, plan.studies.front().study.tokens);
    options.samples = static_cast<int>(std::min<std::int64_t>(options.samples, windows));
  }
  const std::vector<std::vector<StepSample>> all = sample_all(plan, workload, options);
  const std::vector<double> steps = steps_of(plan, all, options.samples);
  if (options.stop != nullptr && options.stop->load()) return prediction;

  if (of_stage != nullptr) *of_stage = steps;
  StepDistribution d = distribution_of(steps, options);
  Interval low, high;
  Factors& factors = prediction.factors;
  double straggler = 0;
  double launch = 0;
  double mean_experts = 0;
  double slowest_experts = 0;
  const double samples = options.samples;
  const double kinds_layers = std::accumulate(plan.studies.begin(), plan.studies.end(), 0.0,
                                              [](double sum, const EpStudy& s) { return sum + s.study.layers; });
  const double slow = slowest_factor(plan);
  prediction.origin = Origin::measured;
  for (std::size_t i = 0; i < plan.studies.size(); ++i) {
    const EpStudy& study = plan.studies[i];
    const Means m = means_of(all[i]);
    const double weight = study.study.layers / kinds_layers;
    double distinct = 0;
    for (const StepSample& s : all[i]) {
      d.row_imbalance += weight * s.row_imbalance / samples;
      d.port_imbalance += weight * s.port_imbalance / samples;
      d.dropped_ratio += weight * s.dropped_ratio / samples;
      distinct += s.distinct_ratio / samples;
      d.contended_layers += s.contended_layers;
    }
    d.distinct_ratio += weight * distinct;
    add_operators(study, m, slow, prediction);
    for (const EpPiece& piece : study.pieces) prediction.origin = weakest(prediction.origin, piece.origin);
    // Laws were measured on links as the datasheet has them; what a file assumes was not measured.
    if (study.study.topology.origin() == Origin::assumed) prediction.origin = Origin::assumed;
    const std::size_t first = prediction.operators.size() - study.pieces.size();
    for (std::size_t p = 0; p < study.pieces.size(); ++p) {
      const double seconds = prediction.operators[first + p].latency.value();
      low.add(seconds, -study.pieces[p].log_low);
      high.add(seconds, study.pieces[p].log_high);
    }
    add_shadows(study, m, prediction, low, high);
    const double parts = study.study.batches;
    const double before = study.study.costs.before_s * study.study.layers * parts;
    const double router = study.study.costs.router_s * study.study.layers * parts;
    const double shared = study.study.costs.shared_s * study.study.layers * parts;
    const double experts = std::max(0.0, m.mean_kernels - before - router - shared);
    mean_experts += experts;
    slowest_experts += std::max(0.0, m.kernels - slow * (before + router + shared));
    const ExpertShares shares = share_experts(plan, study, machine.kernels->device, experts, distinct);
    factors.all_to_all += Seconds(std::max(0.0, m.step - m.kernels));
    factors.routing_overhead += Seconds(router);
    factors.memory_bandwidth += Seconds(shares.memory);
    factors.compute += Seconds(shares.compute + shared);
    launch += shares.launch;
    straggler += m.kernels - m.mean_kernels;
  }
  const double prepared = plan.around.prepared_s;
  const double waits = d.mean.value() - prepared - mean(device_seconds(plan, all, options.samples));
  add_around(plan.around, waits, slow, prediction, low, high);
  const double waited = add_offload(plan, workload, options, all, d.mean.value(), prediction, low, high);
  launch += prepared + waits;
  prediction.latency = d.mean;
  const double total = std::accumulate(prediction.operators.begin(), prediction.operators.end(), 0.0,
                                       [](double sum, const OperatorCost& op) { return sum + op.latency.value(); });
  prediction.low = d.mean * std::exp(std::min(-low.seconds() / total, plan.around.log_low));
  prediction.high = d.mean * std::exp(std::max(high.seconds() / total, plan.around.log_high));
  prediction.throughput_tokens_per_s = step_tokens(workload) / d.mean.value();
  if (plan.deployment.ep == 1) factors.expert_parallel_efficiency_ratio = 1;
  if (slowest_experts > 0) d.expert_balance = mean_experts / slowest_experts;
  // What waits for experts was counted as exchange.
  factors.all_to_all = Seconds(std::max(0.0, factors.all_to_all.value() - waited));
  const double memory = factors.memory_bandwidth.value();
  factors.memory_bandwidth += Seconds(waited);
  const std::array<std::pair<double, const char*>, 7> parts{{{memory, "memory_bandwidth"},
                                                             {waited, "host_link"},
                                                             {factors.compute.value(), "compute"},
                                                             {factors.routing_overhead.value(), "router"},
                                                             {factors.all_to_all.value(), "all_to_all"},
                                                             {straggler, "straggler"},
                                                             {launch, "launch"}}};
  prediction.bottleneck = std::ranges::max_element(parts, {}, [](const auto& part) { return part.first; })->second;
  prediction.distribution = d;
  return prediction;
}

}  // namespace moecast
