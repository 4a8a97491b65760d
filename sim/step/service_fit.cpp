#include "sim/step/service_fit.h"

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

constexpr int kParameters = 7;
constexpr double kFirstTokenWeight = 0.3;
constexpr double kEnoughRows = 200;
constexpr std::size_t kLeastServingRows = 10;

using Values = std::array<double, kParameters>;
constexpr Values kPrior{1, 30e-6, 0.5e-3, 1, 1, 0.12, 10e-6};
/// Standard deviations of ln.
constexpr Values kWidth{0.25, 1, 1, 0.5, 0.15, 0.5, 1};
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
      const ServiceTimes times = service_times(rows[i].terms, law);
      r(at) = weight * std::log(times.tpot_s / rows[i].tpot_s);
      r(at + 1) = kFirstTokenWeight * weight * std::log(times.ttft_s / rows[i].ttft_s);
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
