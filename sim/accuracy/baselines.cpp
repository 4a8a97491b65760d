#include "sim/accuracy/baselines.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <tuple>

#include "models/core/count.h"
#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

double rate_log_seconds(std::span<const double, 4> p, double m, double n, double k) {
  return std::log(2 * m * n * k) - p[0] + std::log1p(std::exp(p[1]) / m) + std::log1p(std::exp(p[2]) / k) +
         std::log1p(std::exp(p[3]) / n);
}

std::array<double, 4> fit_rate(const std::vector<KernelPoint>& points, const std::vector<double>& seconds) {
  LeastSquaresProblem problem;
  problem.residuals = [&](const Eigen::VectorXd& p) {
    Eigen::VectorXd r(static_cast<Eigen::Index>(points.size()));
    for (std::size_t i = 0; i < points.size(); ++i) {
      const OperatorShape& s = points[i].shape;
      r(static_cast<Eigen::Index>(i)) =
          rate_log_seconds(std::span<const double, 4>(p.data(), 4), value(s.m), value(s.n), value(s.k)) -
          std::log(seconds[i]);
    }
    return r;
  };
  const Eigen::Vector4d start(std::log(50e9), 0, std::log(4.0), std::log(4.0));
  problem.penalties = [start](const Eigen::VectorXd& p) { return Eigen::VectorXd(0.02 * (p - start)); };
  const Eigen::VectorXd best = fit_least_squares(problem, start);
  return {best(0), best(1), best(2), best(3)};
}

double octaves(double a, double b) { return std::log2(std::max(a, 1.0)) - std::log2(std::max(b, 1.0)); }

}  // namespace

Baselines::Baselines(const std::vector<Measurement>& measurements) {
  std::map<std::tuple<std::string, DType, int>, Group> groups;
  for (const Measurement& row : measurements) {
    if (row.point.kind != OperatorKind::gemm) continue;
    Group& group = groups[{row.point.backend, row.point.dtype, row.point.threads}];
    group.points.push_back(row.point);
    group.seconds.push_back(row.latency.value());
  }
  for (auto& [key, group] : groups) {
    group.rate = fit_rate(group.points, group.seconds);
    groups_.push_back(std::move(group));
  }
}

const Baselines::Group* Baselines::find(const Operator& op, const Deployment& deployment) const {
  for (const Group& group : groups_) {
    const KernelPoint& first = group.points.front();
    if (first.backend == deployment.backend && first.dtype == op.dtype && first.threads == deployment.threads) {
      return &group;
    }
  }
  return nullptr;
}

template <class Time>
std::optional<double> Baselines::sum(const OperatorGraph& graph, const Deployment& deployment, Time time) const {
  double total = 0;
  for (const Operator& op : graph.operators) {
    if (op.kind != OperatorKind::gemm && op.kind != OperatorKind::grouped_gemm) continue;
    const Group* group = find(op, deployment);
    if (group == nullptr) return std::nullopt;
    if (op.rows.empty()) total += op.count * time(*group, op, value(op.shape.m));
    for (const RowGroup& rows : op.rows) total += op.count * rows.experts * time(*group, op, rows.rows);
  }
  return total;
}

std::optional<double> Baselines::roofline_s(const OperatorGraph& graph, const Deployment& deployment) const {
  return sum(graph, deployment, [](const Group& group, const Operator& op, double m) {
    return std::exp(rate_log_seconds(group.rate, m, value(op.shape.n), value(op.shape.k)));
  });
}

std::optional<double> Baselines::nearest_s(const OperatorGraph& graph, const Deployment& deployment) const {
  return sum(graph, deployment, [&](const Group& group, const Operator& op, double m) {
    const double n = value(op.shape.n);
    const double k = value(op.shape.k);
    const double footprint = std::max(graph.footprint.value(), n * k * bytes_per_weight(op.dtype));
    double best = 1e300;
    double seconds = 0;
    for (std::size_t i = 0; i < group.points.size(); ++i) {
      const KernelPoint& p = group.points[i];
      const double pm = value(p.shape.m);
      const double pn = value(p.shape.n);
      const double pk = value(p.shape.k);
      const double ring = std::max(p.footprint.value(), pn * pk * bytes_per_weight(p.dtype));
      const double distance = std::pow(octaves(m, pm), 2) + std::pow(octaves(n, pn), 2) + std::pow(octaves(k, pk), 2) +
                              std::pow(octaves(footprint, ring), 2);
      if (distance >= best) continue;
      best = distance;
      seconds = group.seconds[i] * (m * n * k) / (pm * pn * pk);
    }
    return seconds;
  });
}

}  // namespace moecast
