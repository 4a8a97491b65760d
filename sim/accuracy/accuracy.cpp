#include "sim/accuracy/accuracy.h"

#include <algorithm>
#include <cmath>

#include "models/core/statistics.h"

namespace moecast {
namespace {

double error(double predicted, double measured) { return std::abs(predicted - measured) / measured; }

/// Mean error of a baseline, unknown unless every outcome has one.
std::optional<double> baseline_mape(const std::vector<Outcome>& outcomes, std::optional<double> Outcome::* field) {
  std::vector<double> errors;
  for (const Outcome& outcome : outcomes) {
    if (!(outcome.*field)) return std::nullopt;
    errors.push_back(error(*(outcome.*field), outcome.measured_s));
  }
  return mean(errors);
}

}  // namespace

std::optional<ErrorSummary> summarise_errors(const std::vector<Outcome>& outcomes) {
  if (outcomes.empty()) return std::nullopt;
  std::vector<double> errors;
  std::vector<double> predicted;
  std::vector<double> measured;
  std::vector<double> ratios;
  std::vector<double> reruns;
  int covered = 0;
  for (const Outcome& o : outcomes) {
    errors.push_back(error(o.predicted_s, o.measured_s));
    predicted.push_back(o.predicted_s);
    measured.push_back(o.measured_s);
    ratios.push_back(o.predicted_s / o.measured_s - 1);
    if (o.rerun_ratio) reruns.push_back(*o.rerun_ratio);
    covered += o.low_s <= o.measured_s && o.measured_s <= o.high_s ? 1 : 0;
  }
  ErrorSummary summary;
  summary.n = static_cast<int>(outcomes.size());
  const double n = summary.n;
  summary.median_ape = median(errors);
  summary.mape = mean(errors);
  summary.p90_ape = quantile(errors, 0.9);
  summary.within_10_ratio =
      static_cast<double>(std::count_if(errors.begin(), errors.end(), [](double e) { return e <= 0.1; })) / n;
  summary.kendall_tau = kendall_tau(predicted, measured);
  summary.coverage_90_ratio = covered / n;
  summary.bias = median(ratios);
  summary.roofline_mape = baseline_mape(outcomes, &Outcome::roofline_s);
  summary.nearest_mape = baseline_mape(outcomes, &Outcome::nearest_s);
  if (!reruns.empty()) {
    summary.noise_mape = mean(reruns);
    summary.noise_p90 = quantile(reruns, 0.9);
  }
  return summary;
}

}  // namespace moecast
