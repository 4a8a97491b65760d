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
#include "models/routing/inclusion.h"
#include "models/routing/routing_trace.h"
#include "models/routing/row_classes.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostExperts = 1'000'000;
/// Below, doubles hold no draws of a Dirichlet distribution; above, all experts are alike.
constexpr double kLeastConcentration = 0.01;
constexpr double kMostConcentration = 1e6;

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
