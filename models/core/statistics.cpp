#include "models/core/statistics.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

namespace moecast {

double quantile(std::vector<double> values, double share) {
  assert(!values.empty() && share >= 0 && share <= 1);
  std::sort(values.begin(), values.end());
  const double rank = share * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(rank);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (rank - static_cast<double>(low)) * (values[high] - values[low]);
}

double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

double mean(std::span<const double> values) {
  assert(!values.empty());
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::optional<double> kendall_tau(std::span<const double> a, std::span<const double> b) {
  assert(a.size() == b.size());
  double concordance = 0;
  double pairs_a = 0;
  double pairs_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const int x = (a[i] > a[j]) - (a[i] < a[j]);
      const int y = (b[i] > b[j]) - (b[i] < b[j]);
      concordance += x * y;
      pairs_a += x * x;
      pairs_b += y * y;
    }
  }
  if (pairs_a == 0 || pairs_b == 0) return std::nullopt;
  return concordance / std::sqrt(pairs_a * pairs_b);
}

}  // namespace moecast
