#pragma once
#include <span>

namespace moecast {

/// How uneven a load is. All are dimensionless.
struct LoadMetrics {
  double max_over_mean = 1;
  double cv_squared = 0;  ///< variance over the square of the mean: the balancing loss of importance and load
  double gini = 0;        ///< 0: all equal; towards 1: all on one
  double entropy_nats = 0;
  double normalised_entropy = 1;  ///< over ln(count); 1 for a single one
};

/// @param load  rows or tokens of each expert or rank; at least one, sum above 0. @throws InputError otherwise.
LoadMetrics load_metrics(std::span<const double> load);

}  // namespace moecast
