#include "models/routing/row_classes.h"

#include <algorithm>
#include <cmath>

namespace moecast {
namespace {

constexpr double kMostInclusion = 1 - 1e-15;  ///< keeps the logarithm of the rest finite
constexpr double kAlike = 1e-12;
/// A distribution narrower than this share of its mean is one group.
constexpr double kNarrow = 0.05;

void set_class(RowClasses& classes, std::size_t at, double inclusion, double experts) {
  classes.inclusion[at] = std::min(inclusion, kMostInclusion);
  classes.log_left_out[at] = std::log1p(-classes.inclusion[at]);
  classes.experts[at] = experts;
}

}  // namespace

RowClasses classes_of(std::vector<double> inclusion) {
  std::sort(inclusion.begin(), inclusion.end());
  const std::size_t experts = inclusion.size();
  RowClasses classes;
  classes.most = inclusion.back();
  const bool alike = inclusion.back() - inclusion.front() < kAlike;
  const std::size_t count = alike ? 1 : std::min<std::size_t>(RowClasses::kMost, experts);
  classes.count = static_cast<int>(count);
  for (std::size_t c = 0; c < count; ++c) {
    const std::size_t first = c * experts / count;
    const std::size_t last = (c + 1) * experts / count;
    double p = 0;
    for (std::size_t e = first; e < last; ++e) p += inclusion[e] / static_cast<double>(last - first);
    set_class(classes, c, p, static_cast<double>(last - first));
  }
  return classes;
}

RowClasses uniform_classes(std::int64_t experts, int top_k) {
  RowClasses classes;
  classes.count = 1;
  classes.most = top_k / static_cast<double>(experts);
  set_class(classes, 0, classes.most, static_cast<double>(experts));
  return classes;
}

int rows_of_classes(const RowClasses& classes, double tokens,
                    std::array<RowGroup, RowClasses::kMostGroups>& groups) noexcept {
  std::size_t count = 0;
  for (std::size_t c = 0; c < static_cast<std::size_t>(classes.count); ++c) {
    const double p = classes.inclusion[c];
    const double exponent = tokens * classes.log_left_out[c];
    // expm1 is slow and needed only where few experts get a row.
    const double touched = exponent < -0.01 ? 1 - std::exp(exponent) : -std::expm1(exponent);
    if (touched <= 0) continue;
    const double mean = tokens * p / touched;
    const double variance = std::max(0.0, (tokens * p * (1 - p) + tokens * tokens * p * p) / touched - mean * mean);
    const double experts = classes.experts[c] * touched;
    // Nodes at the mean and sqrt(3) deviations beside it; nearer where the lower node would fall below one row.
    const double reach = std::min(std::sqrt(3 * variance), mean - 1);
    if (reach < kNarrow * mean) {
      groups[count++] = {mean, experts};
      continue;
    }
    const double outer = std::min(variance / (2 * reach * reach), 0.5);
    groups[count++] = {mean - reach, experts * outer};
    if (outer < 0.5) groups[count++] = {mean, experts * (1 - 2 * outer)};
    groups[count++] = {mean + reach, experts * outer};
  }
  return static_cast<int>(count);
}

double fullest_of(const RowClasses& classes, double tokens) noexcept {
  const double mean = tokens * classes.most;
  return std::min(tokens, std::ceil(mean + 2 * std::sqrt(std::max(0.0, mean * (1 - classes.most)))));
}

}  // namespace moecast
