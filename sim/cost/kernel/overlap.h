#pragma once
#include <algorithm>
#include <cmath>

namespace moecast {

/// (a^q + b^q + ...)^(1/q) without overflow: parts that overlap the better the larger q.
template <typename... Times>
double overlapped(double q, Times... times) {
  const double longest = std::max({times..., 1e-30});
  return longest * std::pow((std::pow(times / longest, q) + ...), 1 / q);
}

/// The same of two, at least 0 each, as kernels are asked most.
inline double overlapped_pair(double q, double a, double b) {
  const double longer = std::max(a, b);
  const double shorter = std::min(a, b);
  // By logarithms: two calls of pow are a third of a query.
  return shorter > 0 ? longer * std::exp(std::log(1 + std::exp(q * std::log(shorter / longer))) / q) : longer;
}

}  // namespace moecast
