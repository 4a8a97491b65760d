#include "models/core/statistics.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

namespace moecast {

double quantile(std::vector<double> values, double share) {
  assert(!values.empty() && share >= 0 && share <= 1);
  const double rank = share * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::ptrdiff_t>(rank);
  std::nth_element(values.begin(), values.begin() + low, values.end());
  const double at = values[static_cast<std::size_t>(low)];
  if (low + 1 == std::ssize(values)) return at;
  const double next = *std::min_element(values.begin() + low + 1, values.end());
  return at + (rank - static_cast<double>(low)) * (next - at);
}

double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

double mean(std::span<const double> values) {
  assert(!values.empty());
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

namespace {

/// Pairs among `count` equal values.
double pairs(double count) { return count * (count - 1) / 2; }

/// Sorts and counts the pairs that were out of order (equal values are not).
double sort_and_count(std::vector<double>& values, std::vector<double>& scratch, std::size_t from, std::size_t to) {
  if (to - from < 2) return 0;
  const std::size_t middle = from + (to - from) / 2;
  double swaps = sort_and_count(values, scratch, from, middle) + sort_and_count(values, scratch, middle, to);
  std::size_t left = from;
  std::size_t right = middle;
  for (std::size_t out = from; out < to; ++out) {
    if (right == to || (left < middle && values[left] <= values[right])) {
      scratch[out] = values[left++];
    } else {
      swaps += static_cast<double>(middle - left);
      scratch[out] = values[right++];
    }
  }
  std::copy(scratch.begin() + static_cast<std::ptrdiff_t>(from), scratch.begin() + static_cast<std::ptrdiff_t>(to),
            values.begin() + static_cast<std::ptrdiff_t>(from));
  return swaps;
}

template <class Same>
double tied_pairs(std::size_t size, const Same& same) {
  double sum = 0;
  std::size_t first = 0;
  for (std::size_t i = 1; i <= size; ++i) {
    if (i < size && same(first, i)) continue;
    sum += pairs(static_cast<double>(i - first));
    first = i;
  }
  return sum;
}

}  // namespace

std::optional<double> kendall_tau(std::span<const double> a, std::span<const double> b) {
  assert(a.size() == b.size());
  // Knight (1966): sort by a, then the swaps that sort b are the discordant pairs.
  const std::size_t size = a.size();
  std::vector<std::size_t> order(size);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t i, std::size_t j) { return a[i] != a[j] ? a[i] < a[j] : b[i] < b[j]; });
  const double ties_a = tied_pairs(size, [&](std::size_t i, std::size_t j) { return a[order[i]] == a[order[j]]; });
  const double ties_both = tied_pairs(
      size, [&](std::size_t i, std::size_t j) { return a[order[i]] == a[order[j]] && b[order[i]] == b[order[j]]; });
  std::vector<double> sorted(size);
  for (std::size_t i = 0; i < size; ++i) sorted[i] = b[order[i]];
  std::vector<double> scratch(size);
  const double discordant = sort_and_count(sorted, scratch, 0, size);
  const double ties_b = tied_pairs(size, [&](std::size_t i, std::size_t j) { return sorted[i] == sorted[j]; });
  const double all = pairs(static_cast<double>(size));
  const double pairs_a = all - ties_a;
  const double pairs_b = all - ties_b;
  if (!(pairs_a > 0) || !(pairs_b > 0)) return std::nullopt;
  return (all - ties_a - ties_b + ties_both - 2 * discordant) / std::sqrt(pairs_a * pairs_b);
}

}  // namespace moecast
