#include "tools/loop/closure.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "models/core/statistics.h"
#include "sim/make_predictor.h"

namespace moecast {
namespace {

/// Fewer layers say too little about a factor.
constexpr std::size_t kLeastLayers = 4;
constexpr double kCoverage = 0.9;
/// A ratio of few layers is not believed beyond these.
constexpr double kLeastRatio = 0.25;
constexpr double kMostRatio = 4;
/// Standard deviation of ln(factor) between groups of layers of one setting: what small layers share, large ones need
/// not (six settings of a Zen 4, 11 layers each beside 33 others: medians from -0.07 to 0.07, uncorrelated).
constexpr double kBetweenGroups = 0.05;

struct Stray {
  double log_ratio;   ///< ln(measured / predicted)
  double half_width;  ///< of ln latency, from the kernels
};

/// ln of the factor of some layers; all = their number + 1 leaves none out.
double log_factor(const std::vector<Stray>& layers, std::size_t left_out) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (i != left_out) ratios.push_back(layers[i].log_ratio);
  }
  const double middle = median(ratios);
  for (double& ratio : ratios) ratio = std::abs(ratio - middle);
  // With few layers the median itself is uncertain, and so is whether others share it: it moves towards 1 by its share
  // of both.
  const double spread = 1.25 * median(ratios) / 0.6745 / std::sqrt(static_cast<double>(ratios.size()));
  return middle * middle * middle / (middle * middle + spread * spread + kBetweenGroups * kBetweenGroups);
}

/// The smallest of n scores that at least (n + 1) * kCoverage of n + 1 exchangeable scores do not exceed.
double conformal(std::vector<double> scores) {
  std::sort(scores.begin(), scores.end());
  const double rank = std::ceil(kCoverage * (static_cast<double>(scores.size()) + 1)) - 1;
  return scores[static_cast<std::size_t>(std::min(rank, static_cast<double>(scores.size() - 1)))];
}

}  // namespace

Closures fit_closures(const std::vector<ExecutedLayer>& layers, const Predictor& predictor) {
  std::map<std::tuple<std::string, DType, int, KernelStrategy>, std::vector<Stray>> groups;
  for (const ExecutedLayer& layer : layers) {
    const Deployment& d = layer.deployment;
    const Prediction p = predictor.predict(layer.architecture, d, layer.workload);
    if (!p.latency || !p.high) continue;
    groups[{d.backend, d.dtype.value_or(layer.architecture.dtype), d.threads, d.strategy}].push_back(
        {std::log(layer.latency / *p.latency), std::log(*p.high / *p.latency)});
  }
  Closures closures;
  std::vector<double> scores;
  for (const auto& [key, group] : groups) {
    const bool enough = group.size() >= kLeastLayers;
    for (std::size_t i = 0; i < group.size(); ++i) {
      const double own = enough ? log_factor(group, i) : 0;
      if (group[i].half_width > 0) scores.push_back(std::abs(group[i].log_ratio - own) / group[i].half_width);
    }
    if (!enough) continue;
    Closure closure;
    std::tie(closure.backend, closure.dtype, closure.threads, closure.strategy) = key;
    closure.factor = std::exp(log_factor(group, group.size()));
    closure.layers = static_cast<int>(group.size());
    closures.factors.push_back(closure);
  }
  if (scores.size() >= kLeastLayers) closures.interval_ratio = std::clamp(conformal(scores), kLeastRatio, kMostRatio);
  return closures;
}

Calibration calibrate_with_layers(const Profile& profile, const std::vector<Measurement>& kernels,
                                  const std::vector<ExecutedLayer>& layers) {
  auto calibration = std::make_shared<Calibration>(calibrate(profile, kernels));
  if (layers.empty()) return *calibration;
  Closures closures = fit_closures(layers, *make_predictor(profile, calibration));
  calibration->closures = std::move(closures);
  return *calibration;
}

ExecutedLayer executed_layer(const ExecutedCase& executed) {
  const ValidationCase& asked = executed.asked;
  const TimingSummary& t = executed.timing;
  return {asked.stratum, asked.architecture, asked.deployment, asked.workload, t.latency, t.low,
          t.high,        t.samples,          t.preempted,      t.round_s};
}

}  // namespace moecast
