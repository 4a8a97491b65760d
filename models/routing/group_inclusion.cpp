#include "models/routing/group_inclusion.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/inclusion.h"

namespace moecast {
namespace {

constexpr int kMostSteps = 60;
constexpr double kSolved = 1e-9;

/// Experts of one group, and what another group has for them while they compete.
struct Competitor {
  std::span<const double> popularity;
  double kept = 1;  ///< P(the group is kept too)
};

/// Time at which `count` clocks are expected to have rung, by Newton from below: their number is concave in time.
double time_of_choice(std::span<const Competitor> groups, double count) {
  double time = 0;
  for (int step = 0; step < kMostSteps; ++step) {
    double rung = 0;
    double rate = 0;
    for (const Competitor& group : groups) {
      for (const double w : group.popularity) {
        const double rest = std::exp(-w * time);
        rung += group.kept * (1 - rest);
        rate += group.kept * w * rest;
      }
    }
    const double missing = count - rung;
    if (missing <= kSolved * count || rate <= 0) break;
    time += missing / rate;
  }
  return time;
}

}  // namespace

GroupInclusion group_inclusion(std::span<const double> popularity, int top_k, const GroupLimit& limit) {
  const auto groups = static_cast<std::size_t>(std::max(1, limit.groups));
  if (popularity.size() % groups != 0) throw InputError("groups", "do not divide the experts");
  const std::size_t each = popularity.size() / groups;
  if (static_cast<std::size_t>(top_k) > each * static_cast<std::size_t>(limit.kept)) {
    throw InputError("", "top-k is more than the experts of the groups that are kept");
  }
  std::vector<double> sums(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    const auto own = popularity.subspan(g * each, each);
    sums[g] = std::accumulate(own.begin(), own.end(), 0.0);
  }
  const double all = std::accumulate(sums.begin(), sums.end(), 0.0);
  for (double& sum : sums) sum /= all;
  GroupInclusion result;
  result.kept = inclusion_probability(sums, limit.kept);
  result.chosen.resize(popularity.size());
  std::vector<Competitor> competitors(groups);
  for (std::size_t own = 0; own < groups; ++own) {
    const double others = limit.kept - result.kept[own];
    for (std::size_t g = 0; g < groups; ++g) {
      const double share = others > 0 ? result.kept[g] * (limit.kept - 1) / others : 0;
      competitors[g] = {popularity.subspan(g * each, each), g == own ? 1 : std::min(1.0, share)};
    }
    const double time = time_of_choice(competitors, top_k);
    for (std::size_t e = own * each; e < (own + 1) * each; ++e) {
      result.chosen[e] = result.kept[own] * -std::expm1(-popularity[e] * time);
    }
  }
  const double chosen = std::accumulate(result.chosen.begin(), result.chosen.end(), 0.0);
  for (double& probability : result.chosen) probability = std::min(1.0, probability * top_k / chosen);
  return result;
}

}  // namespace moecast
