#include "tools/loop/grouped_check.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <tuple>

#include "models/core/statistics.h"
#include "models/plan/graph.h"
#include "profiler/cpu/grouped_ffn.h"
#include "sim/analytic/analytic.h"

namespace moecast {
namespace {

/// The layer whose experts a point runs.
Architecture layer_of(const KernelPoint& point) {
  const OperatorShape& s = point.shape;
  Architecture layer;
  layer.hidden = s.hidden;
  layer.dtype = point.dtype;
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = s.width;
  expert.gated = s.gated != 0;
  moe.experts = {{s.experts, expert, ""}};
  moe.router.top_k = static_cast<int>(s.top_k);
  layer.decoder = {{{moe}}};
  return layer;
}

Seconds sum_of_kernels(const KernelPoint& point, const CostModel& model) {
  const OperatorShape& s = point.shape;
  Workload workload;
  workload.phase = Phase::prefill;
  workload.prompt = s.tokens;
  workload.rows_per_expert = grouped_ffn_rows(s);
  const double weights =
      bytes_per_weight(point.dtype) * static_cast<double>((2 + s.gated) * s.hidden * s.width * s.experts);
  workload.copies = std::max<std::int64_t>(1, std::llround(point.footprint.value() / weights));
  Deployment deployment;
  deployment.backend = point.backend;
  deployment.dtype = point.dtype;
  deployment.threads = point.threads;
  const OperatorGraph graph = build_graph(layer_of(point), deployment, workload);
  Seconds sum;
  for (const Operator& op : graph.operators) {
    if (op.stage == "experts") sum += time_of(op, graph, deployment, model).latency;
  }
  return sum;
}

}  // namespace

std::vector<GroupedCheck> check_grouped(const Calibration& calibration, const std::vector<Measurement>& measurements) {
  const auto model = make_cost_model(std::make_shared<const Calibration>(calibration));
  std::map<std::tuple<std::string, DType, int>, std::vector<double>> errors;
  for (const Measurement& row : measurements) {
    const KernelPoint& p = row.point;
    const bool known =
        model->knows(OperatorKind::gemm, p.backend, p.dtype, p.threads) &&
        calibration.find_stage(OperatorKind::activation, p.dtype, p.threads, p.shape.gated != 0) != nullptr;
    if (p.kind != OperatorKind::fused_moe || !known) continue;
    errors[{p.backend, p.dtype, p.threads}].push_back(std::abs(sum_of_kernels(p, *model) / row.latency - 1));
  }
  std::vector<GroupedCheck> checks;
  for (const auto& [key, values] : errors) {
    checks.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), values.size(), median(values)});
  }
  return checks;
}

}  // namespace moecast
