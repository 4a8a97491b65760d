#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/routing/random.h"

namespace moecast {

/// How the experts' order of popularity changes over layers and steps.
struct OrderSeries {
  double correlation = 0;  ///< of the popularity ranks of neighbouring layers (Spearman), 0 to 1: the same order
  double drift = 0;        ///< 1 - that of one layer's ranks in successive steps, 0: never changes, to 1: a new order
  [[nodiscard]] bool active() const { return correlation > 0 || drift > 0; }
};

/// Which expert has the first, second, ... popularity of a layer in a step.
///
/// A Gaussian copula, autoregressive over layers and over steps: ranks of neighbours correlate as asked, those of
/// layers (steps) further apart less. Groups of consecutive experts stay together. The same for a seed, whatever steps
/// were asked for before.
class ExpertOrders {
 public:
  /// @param groups  equal groups of consecutive experts. @throws InputError unless they divide the experts, there is a
  /// layer, and correlation and drift lie in [0, 1].
  ExpertOrders(int experts, int groups, int layers, OrderSeries series, std::uint64_t seed);
  /// Moves to a step, counted from 0.
  void go_to(std::int64_t step);
  /// Experts of a layer, most popular first (inside each group, and groups among each other).
  [[nodiscard]] std::span<const std::int32_t> at(int layer) const;

 private:
  void restart();
  void draw(double kept);
  void sort_layers();

  int experts_, groups_, layers_;
  double layer_rho_, step_rho_;  ///< of the normal scores behind the ranks
  std::uint64_t seed_;
  Random random_;
  std::int64_t step_ = -1;
  std::vector<double> innovations_;  ///< [layer][expert, then group]
  std::vector<std::int32_t> orders_;
};

/// Weights in the order of places: largest first inside each group, groups by their sums.
std::vector<double> ordered_popularity(std::vector<double> popularity, int groups);

}  // namespace moecast
