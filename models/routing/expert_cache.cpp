#include "models/routing/expert_cache.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, 2> kResidencies{"static", "lru"};
/// Ages that are told apart: an expert that was not used for so many steps counts as never used.
constexpr double kOldest = 1e15;

/// Experts expected to have been used within the last `steps` steps.
double used_within(std::span<const double> touched, double steps) {
  double used = 0;
  for (const double a : touched) used += a >= 1 ? (steps > 0 ? 1 : 0) : -std::expm1(steps * std::log1p(-a));
  return used;
}

std::vector<double> most_popular(std::span<const double> touched, std::size_t places) {
  std::vector<std::size_t> order(touched.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return touched[a] > touched[b]; });
  std::vector<double> resident(touched.size(), 0.0);
  for (std::size_t i = 0; i < places; ++i) resident[order[i]] = 1;
  return resident;
}

std::vector<double> least_recent_leave(std::span<const double> touched, double places) {
  // Whole steps n that hold fewer than `places`, then the share of the step before that still fits.
  double n = 0;
  for (double stride = 1; stride <= kOldest && used_within(touched, n + stride) < places; stride *= 2) n += stride;
  for (double stride = std::max(1.0, n); stride >= 1; stride = std::floor(stride / 2)) {
    while (n + stride <= kOldest && used_within(touched, n + stride) < places) n += stride;
  }
  const double whole = used_within(touched, n);
  const double more = used_within(touched, n + 1) - whole;
  const double share = more > 0 ? std::clamp((places - whole) / more, 0.0, 1.0) : 0.0;
  std::vector<double> resident(touched.size());
  for (std::size_t e = 0; e < touched.size(); ++e) {
    const double a = touched[e];
    const double within = a >= 1 ? (n > 0 ? 1 : 0) : -std::expm1(n * std::log1p(-a));
    resident[e] = within + share * a * (1 - within);
  }
  return resident;
}

}  // namespace

std::string_view to_string(ResidencyPolicy policy) { return kResidencies[static_cast<std::size_t>(policy)]; }

std::optional<ResidencyPolicy> find_residency_policy(std::string_view text) {
  const auto found = std::ranges::find(kResidencies, text);
  if (found == kResidencies.end()) return std::nullopt;
  return static_cast<ResidencyPolicy>(found - kResidencies.begin());
}

std::vector<double> touch_probability(std::span<const double> inclusion, double tokens) {
  std::vector<double> touched(inclusion.size());
  std::ranges::transform(inclusion, touched.begin(), [tokens](double q) {
    return q >= 1 ? (tokens > 0 ? 1.0 : 0.0) : -std::expm1(tokens * std::log1p(-q));
  });
  return touched;
}

std::vector<double> residency(std::span<const double> touched, int places, ResidencyPolicy policy) {
  if (places < 0) throw InputError("", "a cache cannot hold " + std::to_string(places) + " experts");
  if (static_cast<std::size_t>(places) >= touched.size()) return std::vector<double>(touched.size(), 1.0);
  if (places == 0) return std::vector<double>(touched.size(), 0.0);
  return policy == ResidencyPolicy::most_popular ? most_popular(touched, static_cast<std::size_t>(places))
                                                 : least_recent_leave(touched, places);
}

CacheUse cache_use(std::span<const double> touched, int places, ResidencyPolicy policy) {
  const std::vector<double> resident = residency(touched, places, policy);
  CacheUse use;
  use.missed_distribution.assign(touched.size() + 1, 0.0);
  use.missed_distribution[0] = 1;
  std::size_t known = 0;
  for (std::size_t e = 0; e < touched.size(); ++e) {
    const double missed = touched[e] * (1 - resident[e]);
    use.touched += touched[e];
    use.missed += missed;
    if (missed <= 0) continue;
    ++known;
    for (std::size_t m = known; m > 0; --m) {
      use.missed_distribution[m] = use.missed_distribution[m] * (1 - missed) + use.missed_distribution[m - 1] * missed;
    }
    use.missed_distribution[0] *= 1 - missed;
  }
  use.missed_distribution.resize(known + 1);
  return use;
}

CacheUse slowest_cache(std::span<const CacheUse> ranks) {
  CacheUse all;
  std::size_t most = 0;
  for (const CacheUse& rank : ranks) {
    all.touched += rank.touched;
    all.missed += rank.missed;
    most = std::max(most, rank.missed_distribution.size());
  }
  // P(the most is at most m) is that of every rank.
  all.missed_distribution.assign(most, 0.0);
  std::vector<double> at_most(ranks.size(), 0.0);
  double before = 0;
  for (std::size_t m = 0; m < most; ++m) {
    double together = 1;
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      const auto& distribution = ranks[r].missed_distribution;
      if (m < distribution.size()) at_most[r] += distribution[m];
      together *= std::min(1.0, at_most[r]);
    }
    all.missed_distribution[m] = std::max(0.0, together - before);
    before = together;
  }
  return all;
}

}  // namespace moecast
