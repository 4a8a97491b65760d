#include "models/routing/inclusion.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>

#include "models/core/error.h"
#include "models/routing/race.h"

namespace moecast {
namespace {

/// Up to this many experts the inclusion probability is integrated exactly.
constexpr std::size_t kExactExperts = 16;
constexpr std::size_t kExactChoices = std::size_t{1} << 17;  ///< experts times k, where it is asked for: 0.1 s
/// Where hardly an expert is chosen by chance, the k-th choice is no gamma variable: some percent are missed.
constexpr double kFewUncertain = 2.5;

bool are_alike(const std::vector<double>& popularity) {
  const auto [least, most] = std::minmax_element(popularity.begin(), popularity.end());
  return *most - *least < 1e-12;
}

/// Adds an expert that has rung with probability p to the distribution of how many have, cut off at `count.size()`.
void add_expert(std::span<double> count, double p) {
  for (std::size_t j = count.size(); j-- > 1;) count[j] = count[j] * (1 - p) + count[j - 1] * p;
  count[0] *= 1 - p;
}

/// P(fewer than k of the other experts have rung), for each expert. `before`: scratch, [experts, k].
/// The distributions of those before and of those after an expert are joined: dividing one expert out of the whole
/// distribution would lose all digits where it has nearly surely rung.
void fewer_others(const std::vector<double>& rung, std::size_t k, std::vector<double>& before,
                  std::vector<double>& fewer) {
  const std::size_t experts = rung.size();
  std::fill(before.begin(), before.end(), 0.0);
  before[0] = 1;
  for (std::size_t e = 1; e < experts; ++e) {
    std::copy_n(before.begin() + (e - 1) * k, k, before.begin() + e * k);
    add_expert(std::span(before).subspan(e * k, k), rung[e - 1]);
  }
  std::vector<double> after(k, 0.0);
  after[0] = 1;
  for (std::size_t e = experts; e-- > 0;) {
    double sum = 0;
    double at_most = 0;
    for (std::size_t j = 0; j < k; ++j) {
      at_most += after[j];
      sum += before[e * k + k - 1 - j] * at_most;
    }
    fewer[e] = sum;
    add_expert(after, rung[e]);
  }
}

/// Scales probabilities to a sum, none beyond 1: what one would have too much goes to the others.
void scale_to_sum(std::vector<double>& probabilities, double sum) {
  std::vector<bool> certain(probabilities.size(), false);
  for (std::size_t round = 0; round < probabilities.size(); ++round) {
    double free = 0;
    double left = sum;
    for (std::size_t e = 0; e < probabilities.size(); ++e)
      (certain[e] ? left : free) += certain[e] ? -1 : probabilities[e];
    bool again = false;
    for (std::size_t e = 0; e < probabilities.size(); ++e) {
      if (certain[e]) continue;
      probabilities[e] *= free > 0 ? left / free : 0;
      if (probabilities[e] < 1) continue;
      probabilities[e] = 1;
      certain[e] = again = true;
    }
    if (!again) return;
  }
}

/// P(e among the first k) = integral of w exp(-w s) P(fewer than k others have rung by s) ds.
/// @param scale  about when k have rung.
std::vector<double> exact_inclusion(const std::vector<double>& popularity, int top_k, double scale) {
  const std::size_t experts = popularity.size();
  const auto k = static_cast<std::size_t>(top_k);
  std::vector<double> inclusion(experts, 0.0);
  std::vector<double> rung(experts);
  std::vector<double> before(experts * k);
  std::vector<double> fewer(experts);
  bool first = true;
  for (RaceTimes times(std::ranges::max(popularity), top_k);; times.advance(), first = false) {
    const double ds = times.weight() + (first ? times.weight_before() : 0);
    for (std::size_t e = 0; e < experts; ++e) rung[e] = -std::expm1(-popularity[e] * times.now());
    fewer_others(rung, k, before, fewer);
    double most = 0;
    for (std::size_t e = 0; e < experts; ++e) {
      const double added = popularity[e] * (1 - rung[e]) * fewer[e] * ds;
      inclusion[e] += added;
      most = std::max(most, added);
    }
    if (times.is_last(scale, most)) break;
  }
  scale_to_sum(inclusion, top_k);
  return inclusion;
}

/// P(e among the first k) = 1 - E exp(-w T), T the time at which k of the others have rung: about gamma distributed,
/// its mean and variance those of a counting process whose rate falls as clocks ring.
/// @param time  at which k clocks are expected to have rung. @param missing  of k rings, at whose time the mean of T is
/// taken: 0 (many clocks, each unlikely) to 1/2.
void gamma_inclusion(const std::vector<double>& popularity, double time, double missing, std::vector<double>& to) {
  double rate = 0;      // of rings at that time
  double variance = 0;  // of how many have rung
  double slowing = 0;   // of the rate
  for (const double w : popularity) {
    const double rest = std::exp(-w * time);
    rate += w * rest;
    variance += rest * (1 - rest);
    slowing += w * w * rest;
  }
  for (std::size_t e = 0; e < popularity.size(); ++e) {
    const double w = popularity[e];
    const double rest = std::exp(-w * time);
    const double others = rate - w * rest;
    if (others <= 0) {
      to[e] = 1 - rest;
      continue;
    }
    const double spread = std::max(0.0, variance - rest * (1 - rest)) / (others * others);
    const double curve = (slowing - w * w * rest) / (2 * others) * spread;
    const double mean = std::max(time + (1 - rest - missing) / others + curve, 1e-9 * time);
    const double scale = spread / mean;
    const double power = scale > 0 ? mean / scale * std::log1p(w * scale) : w * mean;
    to[e] = -std::expm1(-power);
  }
}

/// Between the two ends of what `missing` can be, as much of each as makes the sum k.
std::vector<double> quick_inclusion(const std::vector<double>& popularity, int top_k, double time) {
  std::vector<double> inclusion(popularity.size(), 0.0);
  std::vector<double> less(popularity.size(), 0.0);
  gamma_inclusion(popularity, time, 0, inclusion);
  gamma_inclusion(popularity, time, 0.5, less);
  const double most = std::accumulate(inclusion.begin(), inclusion.end(), 0.0);
  const double least = std::accumulate(less.begin(), less.end(), 0.0);
  const double share = most > least ? std::clamp((most - top_k) / (most - least), 0.0, 1.0) : 0;
  for (std::size_t e = 0; e < inclusion.size(); ++e) inclusion[e] += share * (less[e] - inclusion[e]);
  scale_to_sum(inclusion, top_k);
  return inclusion;
}

/// Variance of how many have rung.
double uncertain_choices(const std::vector<double>& popularity, double time) {
  double variance = 0;
  for (const double w : popularity) {
    const double rest = std::exp(-w * time);
    variance += rest * (1 - rest);
  }
  return variance;
}

}  // namespace

std::size_t check_choice(const std::vector<double>& popularity, int top_k) {
  const std::size_t experts = popularity.size();
  if (top_k < 1 || static_cast<std::size_t>(top_k) > experts) {
    throw InputError("", "top-k is " + std::to_string(top_k) + ", expected 1 to " + std::to_string(experts));
  }
  const auto weighted =
      static_cast<std::size_t>(std::count_if(popularity.begin(), popularity.end(), [](double w) { return w > 0; }));
  if (weighted < static_cast<std::size_t>(top_k)) {
    throw InputError("load",
                     "gives " + std::to_string(weighted) + " of " + std::to_string(experts) +
                         " experts a weight, but every token chooses " + std::to_string(top_k),
                     "give more experts a weight above zero");
  }
  return weighted;
}

std::vector<double> inclusion_probability(const std::vector<double>& popularity, int top_k, Inclusion how) {
  const std::size_t experts = popularity.size();
  const std::size_t weighted = check_choice(popularity, top_k);
  if (top_k == 1) return popularity;
  if (weighted == static_cast<std::size_t>(top_k)) {  // every token chooses all that have a weight
    std::vector<double> certain(experts);
    std::transform(popularity.begin(), popularity.end(), certain.begin(), [](double w) { return w > 0 ? 1.0 : 0.0; });
    return certain;
  }
  if (are_alike(popularity)) return std::vector<double>(experts, top_k / static_cast<double>(experts));
  const double s = time_of_expected_choice(popularity, top_k);
  const bool few = experts * static_cast<std::size_t>(top_k) <= kExactChoices;
  const bool asked = how == Inclusion::exact && few;
  if (experts <= kExactExperts || asked || (few && uncertain_choices(popularity, s) < kFewUncertain)) {
    return exact_inclusion(popularity, top_k, s);
  }
  return quick_inclusion(popularity, top_k, s);
}

double expected_distinct_experts(const std::vector<double>& popularity, std::int64_t tokens, int top_k, Inclusion how) {
  double distinct = 0;
  for (const double p : inclusion_probability(popularity, top_k, how)) {
    distinct += -std::expm1(static_cast<double>(tokens) * std::log1p(-std::min(p, 1 - 1e-15)));
  }
  return distinct;
}

}  // namespace moecast
