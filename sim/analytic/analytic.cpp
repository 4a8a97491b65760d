#include "sim/analytic/analytic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "models/core/error.h"

namespace moecast {
namespace {

bool is_gemm(OperatorKind kind) { return kind == OperatorKind::gemm || kind == OperatorKind::grouped_gemm; }

bool is_collective(OperatorKind kind) {
  return kind == OperatorKind::all_reduce || kind == OperatorKind::all_gather || kind == OperatorKind::reduce_scatter ||
         kind == OperatorKind::all_to_all_dispatch || kind == OperatorKind::all_to_all_combine ||
         kind == OperatorKind::point_to_point;
}

bool is_routing(const Operator& op) { return op.stage == "router" || op.stage == "dispatch" || op.stage == "combine"; }

void add(OperatorTime& sum, const KernelCost& cost, double times) {
  sum.latency += cost.latency * times;
  sum.memory += cost.latency * (times * cost.memory_ratio);
  sum.compute += cost.latency * (times * cost.compute_ratio);
  // Weighted by time; the caller divides by the latency.
  sum.half_width += times * cost.latency.value() * 0.5 * std::log(cost.high / cost.low);
  sum.origin = weakest(sum.origin, cost.origin);
}

/// Half widths of operators that are only like what was measured (Operator::akin): transposed operands, gradients of
/// loops. Not fitted: nothing measures them yet.
constexpr double kAkinSpread = 2;

/// Rows of a perfectly balanced load with the same total over all experts of the layer.
std::vector<RowGroup> balanced(const std::vector<RowGroup>& rows, double experts) {
  double total = 0;
  for (const RowGroup& group : rows) total += group.rows * group.experts;
  if (total >= experts) return {{total / experts, experts}};
  return {{1, total}};
}

struct Totals {
  Seconds latency, memory, compute, all_to_all, routing;
  std::map<OperatorKind, double> spread;  ///< seconds of half width, by kind
};

Seconds half_width_of_sum(const std::map<OperatorKind, double>& spread) {
  double squares = 0;
  double sum = 0;
  for (const auto& [kind, half] : spread) {
    squares += half * half;
    sum += half;
  }
  return Seconds(std::sqrt((1 - kKindCorrelation) * squares + kKindCorrelation * sum * sum));
}

std::string bottleneck_of(const Totals& t) {
  const Seconds rest = t.latency - t.memory - t.compute - t.all_to_all - t.routing;
  const std::array<std::pair<Seconds, const char*>, 5> parts{{{t.memory, "memory_bandwidth"},
                                                              {t.compute, "compute"},
                                                              {t.routing, "router"},
                                                              {t.all_to_all, "all_to_all"},
                                                              {rest, "launch"}}};
  return std::max_element(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.first < b.first; })
      ->second;
}

}  // namespace

KernelPoint kernel_point(const Operator& op, const OperatorGraph& graph, const Deployment& deployment) {
  KernelPoint point;
  point.kind = op.kind == OperatorKind::grouped_gemm ? OperatorKind::gemm : op.kind;
  point.backend = is_gemm(op.kind) ? deployment.backend : "native";
  point.dtype = op.dtype;
  point.threads = deployment.threads;
  point.shape = op.shape;
  const bool attends = op.kind == OperatorKind::attention_prefill || op.kind == OperatorKind::attention_decode;
  const Bytes input = op.input_reuse.value_or(graph.layer_footprint);
  const Bytes output = op.output_reuse.value_or(graph.layer_footprint);
  if (is_gemm(op.kind)) {
    point.footprint = op.weight_reuse.value_or(graph.footprint);
    point.input_footprint = input;
    point.output_footprint = output;
  } else {
    // A stage's input and result share a ring.
    point.footprint = attends ? graph.footprint : std::max(input, output);
  }
  if (op.kind == OperatorKind::embedding) {
    // A gather of rows: copied as they are.
    point.kind = OperatorKind::copy;
    point.shape = {};
    point.shape.bytes = std::max<std::int64_t>(1, std::llround(op.activation_bytes.value() / 2));
  }
  return point;
}

OperatorTime time_of(const Operator& op, const OperatorGraph& graph, const Deployment& deployment,
                     const CostModel& model) {
  const KernelPoint point = kernel_point(op, graph, deployment);
  OperatorTime time;
  if (op.rows.empty()) {
    add(time, model.cost(point), 1);
  } else if (op.ragged_depth) {
    KernelPoint call = point;
    for (const RowGroup& group : op.rows) {
      call.shape.k = std::max<std::int64_t>(1, std::llround(group.rows));
      add(time, model.cost(call), group.experts);
    }
  } else {
    for (const RowGroup& group : op.rows) add(time, model.cost(point, group.rows), group.experts);
  }
  if (time.latency.value() > 0) time.half_width /= time.latency.value();
  widen_if_akin(op, time);
  const double times = op.count * op.work;
  time.latency *= times;
  time.memory *= times;
  time.compute *= times;
  return time;
}

void widen_if_akin(const Operator& op, OperatorTime& time) {
  if (!op.akin) return;
  time.half_width *= kAkinSpread;
  time.origin = weakest(time.origin, Origin::extrapolated);
}

Prediction evaluate(const OperatorGraph& graph, const Deployment& deployment, const Workload& workload,
                    const CostModel& model, const LayerTerms& terms, const Without& without) {
  const TimeOf by_key = [&](const Operator& op) { return time_of(op, graph, deployment, model); };
  return evaluate(graph, deployment, workload, by_key, terms, without);
}

Prediction evaluate(const OperatorGraph& graph, const Deployment& deployment, const Workload& workload,
                    const TimeOf& time_of_operator, const LayerTerms& terms, const Without& without) {
  const double factor = terms.factor;
  Prediction prediction;
  prediction.origin = Origin::measured;
  if (workload.phase == Phase::train) prediction.training.emplace();
  Totals totals;
  for (const Operator& original : graph.operators) {
    OperatorTime time = time_of_operator(original);
    if (without.expert_imbalance && !original.rows.empty()) {
      Operator even = original;
      double experts = 0;
      for (const RowGroup& group : original.rows) experts += group.experts;
      even.rows = balanced(original.rows, experts);
      const OperatorTime other = time_of_operator(even);
      if (other.latency < time.latency) time = other;
    }
    if ((without.all_to_all && is_collective(original.kind)) || (without.routing_overhead && is_routing(original))) {
      continue;
    }
    if (without.memory_bandwidth) {
      time.latency -= time.memory;
      time.memory = Seconds(0);
    }
    totals.latency += time.latency;
    totals.spread[original.kind] += time.latency.value() * time.half_width;
    if (is_collective(original.kind)) {
      totals.all_to_all += time.latency;
    } else if (is_routing(original)) {
      totals.routing += time.latency;
    } else {
      totals.memory += time.memory;
      totals.compute += time.compute;
    }
    prediction.origin = weakest(prediction.origin, time.origin);
    OperatorCost cost{std::string(to_string(original.kind)),
                      original.name,
                      original.stage,
                      original.count,
                      time.latency * factor,
                      time.origin,
                      original.phase};
    cost.half_width = time.half_width * terms.interval_ratio;
    if (!is_collective(original.kind)) {
      cost.flops = original.flops * original.count;
      cost.bytes = (original.weight_bytes + original.activation_bytes) * original.count;
    }
    prediction.operators.push_back(std::move(cost));
    if (prediction.training) {
      prediction.training->latency[static_cast<std::size_t>(original.phase)] += time.latency * factor;
    }
  }
  const double kernels = totals.latency.value() > 0 ? half_width_of_sum(totals.spread) / totals.latency : 0;
  const double half = kernels * terms.interval_ratio;
  const Seconds latency = totals.latency * factor;
  prediction.latency = latency;
  prediction.low = latency * std::exp(-half);
  prediction.high = latency * std::exp(half);
  if (latency.value() > 0) prediction.throughput_tokens_per_s = step_tokens(workload) / latency.value();
  prediction.factors = {totals.all_to_all * factor, totals.memory * factor, totals.compute * factor,
                        totals.routing * factor, deployment.ep == 1 ? std::optional(1.0) : std::nullopt};
  prediction.bottleneck = bottleneck_of(totals);
  return prediction;
}

}  // namespace moecast
