#include "sim/step/step_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "sim/step/stream_overlap.h"

namespace moecast {
namespace {

/// Elementwise kernels reach this share of the datasheet's bandwidth.
constexpr double kElementwiseBandwidth = 0.7;
/// Shares of the datasheet that the trivial predictor takes for granted.
constexpr double kRooflineBandwidth = 0.7;
constexpr double kRooflinePeak = 0.5;
/// Of elementwise traffic: what tensor parallelism does not split (residual and norms), and what it does.
constexpr double kWhole = 0.29;
constexpr double kSplit = 0.71;
/// Relative errors of a kind of kernels, the same in all layers: gemm, shared, experts, recurrent, attention, head,
/// communication; then what no table holds. Kinds agree by `kTogether`.
constexpr StepTimes kKindSpread{0.06, 0.08, 0.10, 0.08, 0.08, 0.05, 0.20};
constexpr double kOtherSpread = 0.25;
constexpr double kElementwiseSpread = 0.3;
constexpr double kPrepareSpread = 0.3;
constexpr double kHostSpread = 0.12;
constexpr double kTogether = 0.3;

}  // namespace

double usual_half_width(StepGroup group) {
  constexpr double kNormalQuantile = 1.645;
  return kNormalQuantile * kKindSpread[static_cast<std::size_t>(group)];
}

double sum(const StepTimes& times) { return std::accumulate(times.begin(), times.end(), 0.0); }

StepModel::StepModel(StepOperators operators, EngineSpec engine, Deployment deployment, const DeviceLimits& device)
    : operators_(std::move(operators)),
      engine_(std::move(engine)),
      deployment_(std::move(deployment)),
      device_(device) {}

StepTimes StepModel::times(const StepShape& shape) const {
  StepTimes times = times_one_after_the_other(operators_, shape);
  times[static_cast<std::size_t>(StepGroup::shared)] *= exposed_shared(operators_, shape, times);
  return times;
}

double StepModel::roofline_s(const StepShape& shape) const {
  double seconds = 0;
  for (const StepOperator& op : operators_.operators) {
    if (!op.work) continue;
    const StepWork work = op.work(shape);
    seconds += op.count * std::max(work.bytes / (kRooflineBandwidth * device_.bandwidth),
                                   work.flops / (kRooflinePeak * device_.peak_bf16));
  }
  return seconds;
}

double StepModel::assumed_s(const StepShape& shape) const {
  double seconds = 0;
  for (const StepOperator& op : operators_.operators) {
    if (op.spread > 0) seconds += op.count * op.seconds(shape) * op.spread;
  }
  return seconds;
}

StepLaunch StepModel::launch_of(double tokens, bool prefill) const {
  return deployment_.eager ? StepLaunch::eager : usual_launch_of(tokens, prefill);
}

StepLaunch StepModel::usual_launch_of(double tokens, bool prefill) const {
  if (!prefill) return StepLaunch::graph;
  return tokens <= engine_.largest_prefill_graph ? StepLaunch::piecewise : StepLaunch::eager;
}

StepCost StepModel::cost(const StepTerms& terms, const EngineHost& host) const {
  const double layers = operators_.layers;
  StepCost cost;
  cost.other_s = host.layer_kernels_s * operators_.launching_layers();
  double device = terms.kernels_s + cost.other_s;
  if (terms.launch == StepLaunch::graph) {
    cost.host_s = host.graph_step_s;
    cost.seconds = std::max(device, cost.host_s);
    cost.waits_s = std::max(0.0, cost.host_s - device);
    cost.host_bound = cost.waits_s > 0;
    return cost;
  }
  const bool eager = terms.launch == StepLaunch::eager;
  cost.elementwise_s = terms.tokens * layers * operators_.hidden * host.token_bytes /
                       (kElementwiseBandwidth * device_.bandwidth) * (kWhole + kSplit / deployment_.tp);
  device += cost.elementwise_s + (eager ? host.eager_gap_s * layers : 0);
  const double launch = eager ? host.eager_launch_s * layers + host.collective_launch_s * operators_.collectives
                              : host.piece_launch_s * layers;
  const double launched = launch + (terms.after_idle ? host.wake_s : 0);
  const double prepared = host.prepare_s * layers;
  cost.host_s = prepared + launched;
  cost.seconds = prepared + std::max(device, launched);
  cost.waits_s = std::max(0.0, launched - device);
  cost.host_bound = cost.waits_s > 0;
  return cost;
}

double StepModel::sigma(const StepTimes& times, const StepCost& cost, StepLaunch launch) const {
  if (cost.host_bound) return kHostSpread * cost.host_s / cost.seconds;
  double squares = 0;
  double plain = 0;
  const auto add = [&](double seconds, double spread) {
    squares += seconds * spread * seconds * spread;
    plain += seconds * spread;
  };
  for (std::size_t i = 0; i < times.size(); ++i) add(times[i], kKindSpread[i]);
  add(cost.other_s, kOtherSpread);
  if (launch != StepLaunch::graph) {
    add(cost.elementwise_s, kElementwiseSpread);
    add(engine_.host.prepare_s * operators_.layers, kPrepareSpread);
  }
  return std::sqrt((1 - kTogether) * squares + kTogether * plain * plain) / cost.seconds;
}

StepHalfWidths StepModel::half_widths(StepLaunch launch) const {
  const double quantile = launch == StepLaunch::graph ? engine_.decode_interval : engine_.prefill_interval;
  StepHalfWidths widths{kKindSpread, quantile * kOtherSpread, quantile * kElementwiseSpread, quantile * kHostSpread};
  for (double& kind : widths.kernels) kind *= quantile;
  return widths;
}

}  // namespace moecast
