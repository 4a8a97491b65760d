#include "tools/loop/closure.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "models/core/statistics.h"

namespace moecast {
namespace {

/// Fewer layers say too little about a factor.
constexpr std::size_t kLeastLayers = 4;
constexpr double kCoverage = 0.9;

Closure fit(const std::vector<double>& log_ratios) {
  Closure closure;
  const double middle = median(log_ratios);
  std::vector<double> distance;
  for (const double ratio : log_ratios) distance.push_back(std::abs(ratio - middle));
  // With few layers the median itself is uncertain: it moves towards 1 by its share of a standard error.
  const double spread = 1.25 * median(distance) / 0.6745 / std::sqrt(static_cast<double>(log_ratios.size()));
  const double kept = middle * middle / (middle * middle + spread * spread + 1e-12);
  closure.factor = std::exp(kept * middle);
  const std::size_t n = distance.size();
  closure.half_width = n >= 10 ? quantile(distance, kCoverage) : *std::max_element(distance.begin(), distance.end());
  closure.layers = static_cast<int>(n);
  return closure;
}

}  // namespace

std::vector<Closure> fit_closures(const std::vector<ExecutedCase>& layers, const Predictor& predictor) {
  std::map<std::tuple<std::string, DType, int, KernelStrategy>, std::vector<double>> ratios;
  for (const ExecutedCase& layer : layers) {
    const ValidationCase& c = layer.asked;
    const Prediction p = predictor.predict(c.architecture, c.deployment, c.workload);
    if (!p.latency) continue;
    ratios[{c.deployment.backend, c.deployment.dtype.value_or(DType::fp32), c.deployment.threads,
            c.deployment.strategy}]
        .push_back(std::log(layer.timing.latency / *p.latency));
  }
  std::vector<Closure> closures;
  for (const auto& [key, logs] : ratios) {
    if (logs.size() < kLeastLayers) continue;
    Closure closure = fit(logs);
    std::tie(closure.backend, closure.dtype, closure.threads, closure.strategy) = key;
    closures.push_back(closure);
  }
  return closures;
}

}  // namespace moecast
