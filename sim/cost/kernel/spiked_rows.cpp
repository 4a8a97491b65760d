#include "sim/cost/kernel/spiked_rows.h"

#include <algorithm>

#include "models/core/statistics.h"

namespace moecast {
namespace {

constexpr double kSpike = 1.5;
constexpr double kFallsAgain = 1.3;
constexpr std::size_t kNeighbours = 3;  ///< on either side

}  // namespace

std::vector<bool> spiked_rows(const KernelSamples& samples) {
  std::vector<bool> spiked(samples.size(), false);
  const KernelKey& key = samples.key;
  if (key.layout != "gemm" || key.kernel != "CutlassFP8ScaledMMLinearKernel") return spiked;
  const std::vector<double>& seconds = samples.latency_s;
  for (const std::vector<std::size_t>& curve : curves_of(samples)) {
    for (std::size_t i = 1; i + 1 < curve.size(); ++i) {
      std::vector<double> near;
      double least_after = seconds[curve[i + 1]];
      for (std::size_t j = i - std::min(i, kNeighbours); j < std::min(curve.size(), i + kNeighbours + 1); ++j) {
        if (j != i) near.push_back(seconds[curve[j]]);
        if (j > i) least_after = std::min(least_after, seconds[curve[j]]);
      }
      const double own = seconds[curve[i]];
      spiked[curve[i]] = own > kSpike * median(std::move(near)) && own > kFallsAgain * least_after;
    }
  }
  return spiked;
}

}  // namespace moecast
