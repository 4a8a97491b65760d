#include "sim/step/fullest_rank.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <random>
#include <tuple>
#include <vector>

#include "models/core/error.h"
#include "models/routing/group_inclusion.h"
#include "models/routing/inclusion.h"

namespace moecast {
namespace {

constexpr int kPopularities = 40;
constexpr std::size_t kMostRemembered = 1024;

/// What a rank's experts are chosen with, of one popularity.
struct RankChoice {
  double rows = 0;      ///< a token
  double variance = 0;  ///< of them
};

GroupInclusion choice_of(const std::vector<double>& popularity, int top_k, const GroupLimit& limit) {
  if (limit.limits()) return group_inclusion(popularity, top_k, limit);
  return {inclusion_probability(popularity, top_k),
          std::vector<double>(static_cast<std::size_t>(std::max(1, limit.groups)), 1.0)};
}

}  // namespace

FullestRank::FullestRank(int experts, int top_k, int ranks, double sigma, const GroupLimit& limit) {
  if (ranks < 1 || experts % ranks != 0) throw InputError("ep", "ranks do not divide the experts");
  const auto local = static_cast<std::size_t>(experts / ranks);
  ExpertLoad load;
  load.kind = LoadKind::log_normal;
  load.parameter = sigma;
  std::mt19937_64 generator(1);
  std::normal_distribution<double> normal;
  std::vector<RankChoice> choices(static_cast<std::size_t>(ranks));
  const std::size_t each = static_cast<std::size_t>(experts) / static_cast<std::size_t>(std::max(1, limit.groups));
  std::vector<double> untouched;  // probability of each expert to get no row
  for (int draw = 0; draw < kPopularities; ++draw) {
    load.seed = static_cast<std::uint64_t>(draw) + 1;
    const GroupInclusion routing = choice_of(expert_popularity(load, experts), top_k, limit);
    const std::vector<double>& chosen = routing.chosen;
    for (std::size_t rank = 0; rank < choices.size(); ++rank) {
      choices[rank] = {};
      for (std::size_t e = rank * local; e < (rank + 1) * local;) {
        // Experts of one group are kept together.
        const std::size_t group = e / each;
        const double kept = routing.kept[group];
        double rows = 0;
        for (; e < (rank + 1) * local && e / each == group; ++e) {
          rows += chosen[e];
          choices[rank].variance += chosen[e] * (1 - chosen[e] / kept);
        }
        choices[rank].rows += rows;
        choices[rank].variance += rows * rows * (1 / kept - 1);
      }
      // All ranks together have top_k rows of every token.
      choices[rank].variance *= std::max(0.0, 1 - choices[rank].rows / top_k);
    }
    untouched.assign(chosen.size(), 1);
    for (std::size_t e = 0; e < chosen.size(); ++e) untouched[e] -= chosen[e];
    for (std::size_t point = 0; point < kPoints; ++point) {
      const double tokens = std::exp2(static_cast<double>(point));
      RankLoad fullest;
      std::size_t which = 0;
      for (std::size_t rank = 0; rank < choices.size(); ++rank) {
        const double rows =
            std::max(0.0, tokens * choices[rank].rows + std::sqrt(tokens * choices[rank].variance) * normal(generator));
        if (rows <= fullest.rows) continue;
        fullest.rows = rows;
        which = rank;
      }
      for (std::size_t e = which * local; e < (which + 1) * local; ++e) {
        fullest.distinct += 1 - untouched[e];
        const double spread = std::sqrt(tokens * chosen[e] * (1 - chosen[e]));
        fullest.fullest = std::max(fullest.fullest, tokens * chosen[e] + spread * normal(generator));
      }
      fullest.fullest = std::clamp(fullest.fullest, fullest.rows / std::max(1.0, fullest.distinct), fullest.rows);
      loads_[point].rows += fullest.rows / kPopularities;
      loads_[point].distinct += fullest.distinct / kPopularities;
      loads_[point].fullest += fullest.fullest / kPopularities;
      for (double& probability : untouched) probability *= probability;  // of twice as many tokens
    }
  }
}

std::shared_ptr<const FullestRank> fullest_rank(int experts, int top_k, int ranks, double sigma,
                                                const GroupLimit& limit) {
  static std::mutex mutex;
  static std::map<std::tuple<int, int, int, double, GroupLimit>, std::shared_ptr<const FullestRank>> known;
  const std::lock_guard lock(mutex);
  if (known.size() >= kMostRemembered) known.clear();
  std::shared_ptr<const FullestRank>& rank = known[{experts, top_k, ranks, sigma, limit}];
  if (!rank) rank = std::make_shared<const FullestRank>(experts, top_k, ranks, sigma, limit);
  return rank;
}

RankLoad FullestRank::at(double tokens) const {
  const double x = std::log2(std::max(1.0, tokens));
  if (x >= static_cast<double>(kPoints - 1)) {
    RankLoad load = loads_.back();
    const double factor = std::exp2(x - static_cast<double>(kPoints - 1));
    load.rows *= factor;
    load.fullest *= factor;
    return load;
  }
  const auto below = static_cast<std::size_t>(x);
  const double share = x - static_cast<double>(below);
  const RankLoad& low = loads_[below];
  const RankLoad& high = loads_[below + 1];
  // Rows are nearly proportional to tokens, touched experts to their logarithm.
  const auto between = [&](double a, double b) { return a * std::pow(b / a, share); };
  return {between(low.rows, high.rows), low.distinct + share * (high.distinct - low.distinct),
          between(low.fullest, high.fullest)};
}

}  // namespace moecast
