#include "models/routing/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "models/core/error.h"

namespace moecast {

LoadMetrics load_metrics(std::span<const double> load) {
  const double sum = std::accumulate(load.begin(), load.end(), 0.0);
  const bool valid = std::all_of(load.begin(), load.end(), [](double x) { return std::isfinite(x) && x >= 0; });
  if (load.empty() || !valid || !(sum > 0)) {
    throw InputError("load", "is empty, negative or sums to nothing", "give each expert or rank its rows");
  }
  const auto count = static_cast<double>(load.size());
  const double mean = sum / count;
  LoadMetrics metrics;
  std::vector<double> sorted(load.begin(), load.end());
  std::sort(sorted.begin(), sorted.end());
  metrics.max_over_mean = sorted.back() / mean;
  double squares = 0;
  double ranked = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    squares += (sorted[i] - mean) * (sorted[i] - mean);
    ranked += (2 * static_cast<double>(i + 1) - count - 1) * sorted[i];
    if (sorted[i] > 0) metrics.entropy_nats -= sorted[i] / sum * std::log(sorted[i] / sum);
  }
  metrics.cv_squared = squares / count / (mean * mean);
  metrics.gini = ranked / (count * sum);
  metrics.normalised_entropy = load.size() == 1 ? 1 : metrics.entropy_nats / std::log(count);
  return metrics;
}

}  // namespace moecast
