#include "models/routing/load.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>

#include "models/core/error.h"
#include "models/routing/race.h"
#include "models/routing/routing_trace.h"
#include "models/routing/row_classes.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostExperts = 1'000'000;
/// Below, doubles hold no draws of a Dirichlet distribution; above, all experts are alike.
constexpr double kLeastConcentration = 0.01;
constexpr double kMostConcentration = 1e6;
/// Up to this many experts the inclusion probability is integrated exactly; above, the law of large numbers holds.
constexpr std::size_t kExactExperts = 64;
constexpr std::size_t kExactChoices = std::size_t{1} << 17;  ///< experts times k, where it is asked for: 0.1 s
/// Where hardly an expert is chosen by chance, no large number is left: a tenth is missed.
constexpr double kFewUncertain = 1;

std::vector<double> raw_weights(const ExpertLoad& load, std::size_t experts) {
  std::vector<double> weights(experts, 1.0);
  std::mt19937_64 generator(load.seed);
  switch (load.kind) {
    case LoadKind::uniform: break;
    case LoadKind::zipf:
      for (std::size_t e = 0; e < experts; ++e) weights[e] = std::pow(static_cast<double>(e + 1), -load.parameter);
      break;
    case LoadKind::power_law: {
      // Density x^-a on [1, 100], drawn by inversion, one draw an expert.
      std::uniform_real_distribution<double> uniform(0, 1);
      const double b = 1 - load.parameter;
      for (double& weight : weights) {
        const double u = uniform(generator);
        weight = std::abs(b) < 1e-9 ? std::pow(100.0, u) : std::pow(1 + u * (std::pow(100.0, b) - 1), 1 / b);
      }
      break;
    }
    case LoadKind::dirichlet: {
      if (!(load.parameter >= kLeastConcentration && load.parameter <= kMostConcentration)) {
        throw InputError("load", "dirichlet's concentration must lie between 0.01 and 1000000",
                         "0.1 is a very skewed load, 10 an even one");
      }
      std::gamma_distribution<double> gamma(load.parameter, 1);
      for (double& weight : weights) weight = std::max(gamma(generator), 1e-12);
      break;
    }
    case LoadKind::log_normal: {
      std::normal_distribution<double> normal(0, load.parameter);
      for (double& weight : weights) weight = std::exp(normal(generator));
      break;
    }
    case LoadKind::histogram:
      if (load.histogram.size() != experts) {
        throw InputError("load",
                         "the histogram has " + std::to_string(load.histogram.size()) + " experts, the model " +
                             std::to_string(experts),
                         "write one weight for each expert");
      }
      weights = load.histogram;
      break;
    case LoadKind::trace:
      if (!load.trace) throw InputError("load", "names no recorded routing", "write trace:FILE");
      weights = trace_popularity(*load.trace, static_cast<std::int64_t>(experts));
      break;
  }
  return weights;
}

bool is_uniform(const std::vector<double>& popularity) {
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

/// @return experts with a weight, at least k of them.
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

}  // namespace

std::vector<double> expert_popularity(const ExpertLoad& load, std::int64_t experts) {
  if (experts < 1 || experts > kMostExperts) {
    throw InputError("",
                     "a load needs 1 to " + std::to_string(kMostExperts) + " experts, not " + std::to_string(experts));
  }
  std::vector<double> weights = raw_weights(load, static_cast<std::size_t>(experts));
  double total = 0;
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight < 0) {
      throw InputError("load", "holds a negative or infinite weight", "weights are finite and at least 0");
    }
    total += weight;
  }
  if (!std::isfinite(total))
    throw InputError("load", "has weights whose sum is infinite", "divide them all by one number");
  if (total <= 0) throw InputError("load", "gives no expert any weight", "one weight must be above zero");
  for (double& weight : weights) weight /= total;
  return weights;
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
  if (is_uniform(popularity)) return std::vector<double>(experts, top_k / static_cast<double>(experts));
  const double s = time_of_expected_choice(popularity, top_k);
  const bool few = experts * static_cast<std::size_t>(top_k) <= kExactChoices;
  if (experts <= kExactExperts || (how == Inclusion::exact && few)) return exact_inclusion(popularity, top_k, s);
  std::vector<double> inclusion(experts);
  double uncertain = 0;  // variance of how many have rung
  for (std::size_t e = 0; e < experts; ++e) {
    inclusion[e] = -std::expm1(-popularity[e] * s);
    uncertain += inclusion[e] * (1 - inclusion[e]);
  }
  return uncertain < kFewUncertain && few ? exact_inclusion(popularity, top_k, s) : inclusion;
}

double expected_distinct_experts(const std::vector<double>& popularity, std::int64_t tokens, int top_k, Inclusion how) {
  double distinct = 0;
  for (const double p : inclusion_probability(popularity, top_k, how)) {
    distinct += -std::expm1(static_cast<double>(tokens) * std::log1p(-std::min(p, 1 - 1e-15)));
  }
  return distinct;
}

std::vector<RowGroup> rows_of_inclusion(std::vector<double> inclusion, std::int64_t tokens) {
  std::array<RowGroup, RowClasses::kMostGroups> groups{};
  const int count = rows_of_classes(classes_of(std::move(inclusion)), static_cast<double>(tokens), groups);
  return {groups.begin(), groups.begin() + count};
}

std::vector<RowGroup> expected_rows(const std::vector<double>& popularity, std::int64_t tokens, int top_k) {
  if (tokens < 1) throw InputError("", "a load needs at least one token");
  return rows_of_inclusion(inclusion_probability(popularity, top_k), tokens);
}

std::vector<RowGroup> group_rows(const std::vector<std::int64_t>& rows_per_expert) {
  std::map<std::int64_t, double> counts;
  for (const std::int64_t rows : rows_per_expert) {
    if (rows < 0) throw InputError("", "an expert cannot have " + std::to_string(rows) + " rows");
    if (rows > 0) counts[rows] += 1;
  }
  std::vector<RowGroup> groups;
  for (const auto& [rows, experts] : counts) groups.push_back({static_cast<double>(rows), experts});
  return groups;
}

std::vector<std::int64_t> sample_rows(const std::vector<double>& popularity, std::int64_t tokens, int top_k,
                                      std::uint64_t seed) {
  const std::size_t experts = popularity.size();
  static_cast<void>(check_choice(popularity, top_k));
  std::mt19937_64 generator(seed);
  std::exponential_distribution<double> clock(1);
  std::vector<std::int64_t> rows(experts, 0);
  std::vector<std::pair<double, std::size_t>> race(experts);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::size_t e = 0; e < experts; ++e) race[e] = {clock(generator) / std::max(popularity[e], 1e-300), e};
    std::nth_element(race.begin(), race.begin() + (top_k - 1), race.end());
    for (int j = 0; j < top_k; ++j) ++rows[race[static_cast<std::size_t>(j)].second];
  }
  return rows;
}

}  // namespace moecast
