#include "models/routing/reach.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moecast {
namespace {

/// Time until which experts, ringing at their rates, are expected to have rung `count` times in all, each at most once.
double time_of_count(std::span<const double> rates, double count) {
  double low = 0;
  double high = 1;
  const auto rung = [&](double time) {
    double sum = 0;
    for (const double rate : rates) sum -= std::expm1(-rate * time);
    return sum;
  };
  while (rung(high) < count && high < 1e18) high *= 2;
  for (int step = 0; step < 60; ++step) {
    const double middle = (low + high) / 2;
    (rung(middle) < count ? low : high) = middle;
  }
  return high;
}

/// Distribution of a count below k, [k] probabilities; what is above is cut off.
using Count = std::vector<double>;

void multiply(const double* a, const double* b, std::size_t k, double* out) {
  for (std::size_t i = 0; i < k; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j <= i; ++j) sum += a[j] * b[i - j];
    out[i] = sum;
  }
}

}  // namespace

std::vector<double> reach_probabilities(std::span<const double> rates, std::span<const std::size_t> first, int top_k) {
  constexpr int kNodes = 96;
  const std::size_t groups = first.size() - 1;
  const auto k = static_cast<std::size_t>(top_k);
  const auto weighted =
      static_cast<double>(std::count_if(rates.begin(), rates.end(), [](double rate) { return rate > 0; }));
  std::vector<double> total(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    total[g] = std::accumulate(rates.begin() + static_cast<std::ptrdiff_t>(first[g]),
                               rates.begin() + static_cast<std::ptrdiff_t>(first[g + 1]), 0.0);
  }
  std::vector<double> reached(groups, 0);
  if (weighted <= top_k) {  // every token draws all that can be drawn
    for (std::size_t g = 0; g < groups; ++g) reached[g] = total[g] > 0 ? 1 : 0;
    return reached;
  }
  // P(first of the group rings while fewer than k others have) = integral of w exp(-w s) P(fewer than k others by s)
  // ds, by quadrature in u = 1 - exp(-s / scale). Others are the groups before and after: products, never a quotient.
  const double scale = time_of_count(rates, top_k);
  Count own(groups * k), before((groups + 1) * k, 0), after(k), others(k), product(k);
  for (int node = 0; node < kNodes; ++node) {
    const double u = (node + 0.5) / kNodes;
    const double s = -scale * std::log1p(-u);
    const double ds = scale / (1 - u) / kNodes;
    std::fill(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(k), 0.0);
    before[0] = 1;
    for (std::size_t g = 0; g < groups; ++g) {
      double* count = own.data() + g * k;
      std::fill(count, count + k, 0.0);
      count[0] = 1;
      for (std::size_t i = first[g]; i < first[g + 1]; ++i) {
        const double p = -std::expm1(-rates[i] * s);
        for (std::size_t j = k; j-- > 1;) count[j] = count[j] * (1 - p) + count[j - 1] * p;
        count[0] *= 1 - p;
      }
      multiply(before.data() + g * k, count, k, before.data() + (g + 1) * k);
    }
    std::fill(after.begin(), after.end(), 0.0);
    after[0] = 1;
    for (std::size_t g = groups; g-- > 0;) {
      multiply(before.data() + g * k, after.data(), k, others.data());
      const double fewer = std::accumulate(others.begin(), others.end(), 0.0);
      reached[g] += total[g] * std::exp(-total[g] * s) * fewer * ds;
      multiply(after.data(), own.data() + g * k, k, product.data());
      after.swap(product);
    }
  }
  for (double& probability : reached) probability = std::min(1.0, probability);
  return reached;
}

}  // namespace moecast
