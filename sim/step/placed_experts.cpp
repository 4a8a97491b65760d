#include "sim/step/placed_experts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>

#include "models/core/error.h"
#include "models/routing/assignment.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"
#include "models/routing/placement.h"
#include "sim/step/collective_cost.h"

namespace moecast {
namespace {

constexpr std::array<std::size_t, 12> kTokens{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};
constexpr int kDraws = 60;
constexpr int kEvenDraws = 20;  ///< of experts that are chosen alike
constexpr std::size_t kMostKnown = 64;

RankLoad fullest_of(const std::vector<std::vector<double>>& rows_of_rank) {
  RankLoad fullest;
  for (const std::vector<double>& rows : rows_of_rank) {
    const RankLoad load = rank_load_of(rows);
    if (load.rows > fullest.rows) fullest = load;
  }
  return fullest;
}

/// Ranks of a node, as in the tables of exchanges over nodes.
constexpr int kNodeDevices = 8;

/// Tokens that reach each node.
class NodeTokens {
 public:
  explicit NodeTokens(int ranks)
      : tokens_(static_cast<std::size_t>((ranks + kNodeDevices - 1) / kNodeDevices)), last_(tokens_.size(), -1) {}
  void add(std::int64_t token, int rank) {
    const auto node = static_cast<std::size_t>(rank / kNodeDevices);
    if (std::exchange(last_[node], token) != token) ++tokens_[node];
  }
  [[nodiscard]] double imbalance() const {
    return *std::ranges::max_element(tokens_) /
           (std::reduce(tokens_.begin(), tokens_.end()) / static_cast<double>(tokens_.size()));
  }

 private:
  std::vector<double> tokens_;
  std::vector<std::int64_t> last_;
};

/// Adds the fullest rank, and how uneven nodes are, at each of kTokens of one draw.
void add_draw(const Assignment& assignment, const Placement& placement, std::vector<RankLoad>& sums,
              std::vector<double>& node_sums) {
  NodeTokens nodes(placement.ranks());
  const auto experts = static_cast<std::size_t>(placement.experts());
  std::vector<std::vector<double>> rows(static_cast<std::size_t>(placement.ranks()), std::vector<double>(experts, 0.0));
  std::vector<std::size_t> turn(experts, 0);
  std::size_t at = 0;
  for (std::size_t token = 0; token < assignment.tokens(); ++token) {
    for (const std::int32_t expert : assignment.of(token)) {
      const auto ranks = placement.ranks_of(expert);
      const auto e = static_cast<std::size_t>(expert);
      const auto rank = ranks[turn[e]++ % ranks.size()];
      ++rows[static_cast<std::size_t>(rank)][e];
      nodes.add(static_cast<std::int64_t>(token), static_cast<int>(rank));
    }
    if (token + 1 < kTokens[at]) continue;
    const RankLoad fullest = fullest_of(rows);
    sums[at].rows += fullest.rows;
    sums[at].distinct += fullest.distinct;
    sums[at].fullest += fullest.fullest;
    node_sums[at] += nodes.imbalance();
    ++at;
  }
}

/// Who is popular, draw by draw.
class PopularityDraws {
 public:
  PopularityDraws(const ExpertLoad& load, int experts) : load_(load), experts_(experts) {
    if (load.kind != LoadKind::log_normal) now_ = expert_popularity(load, experts);
  }

  const std::vector<double>& draw(int number) {
    load_.seed = static_cast<std::uint64_t>(number) + 1;
    switch (load_.kind) {
      case LoadKind::log_normal: now_ = expert_popularity(load_, experts_); break;
      case LoadKind::uniform:
      case LoadKind::histogram:
      case LoadKind::trace: break;
      default: {
        std::mt19937_64 generator(load_.seed);
        std::ranges::shuffle(now_, generator);
      }
    }
    return now_;
  }

 private:
  ExpertLoad load_;
  int experts_;
  std::vector<double> now_;
};

}  // namespace

void check_copies(std::int64_t experts, std::int64_t ranks, std::int64_t copies) {
  if ((experts + copies) % ranks != 0) {
    if (copies == 0) {
      throw InputError("ep", fmt::format("{} ranks do not divide experts = {}", ranks, experts),
                       "choose a degree that divides it");
    }
    throw InputError("redundant_experts",
                     fmt::format("{} ranks do not divide {} experts and {} copies", ranks, experts, copies),
                     "choose as many copies as make a multiple of ep");
  }
  if (copies > experts * (ranks - 1)) {
    throw InputError("redundant_experts", fmt::format("{} copies: no rank holds an expert twice", copies),
                     fmt::format("at most {}", experts * (ranks - 1)));
  }
}

PlacedExperts::PlacedExperts(int experts, int top_k, int ranks, int copies, const ExpertLoad& load,
                             const GroupLimit& limit)
    : loads_(kTokens.size()) {
  check_copies(experts, ranks, copies);
  RoutingPolicy policy;
  policy.top_k = top_k;
  policy.groups = limit.groups;
  policy.groups_kept = limit.kept;
  Assignment assignment;
  /// Means of draws.
  const auto drawn = [&](int draws, const ExpertLoad& asked, bool placed, std::vector<RankLoad>& loads) {
    PopularityDraws popular(asked, experts);
    std::vector<double> nodes(kTokens.size(), 0.0);
    for (int i = 0; i < draws; ++i) {
      const std::vector<double>& popularity = popular.draw(i);
      const Placement placement =
          placed ? balanced_placement(inclusion_probability(popularity, top_k), ranks, (experts + copies) / ranks)
          : experts % ranks == 0 ? contiguous_placement(experts, ranks)
                                 : round_robin_placement(experts, ranks);
      Router router(policy, popularity);
      Random random(static_cast<std::uint64_t>(i) + 1001);
      router.draw(static_cast<std::int64_t>(kTokens.back()), random, assignment);
      add_draw(assignment, placement, loads, nodes);
    }
    for (double& node : nodes) node /= draws;
    for (RankLoad& mean : loads) {
      mean.rows /= draws;
      mean.distinct /= draws;
      mean.fullest /= draws;
    }
    return nodes;
  };
  for (const std::size_t tokens : kTokens) log_tokens_.push_back(std::log2(static_cast<double>(tokens)));
  node_.popular = drawn(kDraws, load, copies > 0, loads_);
  std::vector<RankLoad> even(kTokens.size());
  node_.even = drawn(kEvenDraws, {}, false, even);
  for (std::size_t i = 0; i < kTokens.size(); ++i) {
    const double mean = static_cast<double>(kTokens[i]) * top_k / ranks;
    rank_.popular.push_back(loads_[i].rows / mean);
    rank_.even.push_back(even[i].rows / mean);
  }
}

std::shared_ptr<const PlacedExperts> placed_experts(int experts, int top_k, int ranks, int copies,
                                                    const ExpertLoad& load, const GroupLimit& limit) {
  struct Known {
    std::tuple<int, int, int, int, GroupLimit> numbers;
    ExpertLoad load;
    std::shared_ptr<const PlacedExperts> placed;
  };
  static std::mutex mutex;
  static std::vector<Known> known;
  const std::tuple numbers(experts, top_k, ranks, copies, limit);
  const std::lock_guard lock(mutex);
  for (const Known& one : known) {
    if (one.numbers == numbers && one.load == load) return one.placed;
  }
  auto placed = std::make_shared<const PlacedExperts>(experts, top_k, ranks, copies, load, limit);
  if (known.size() >= kMostKnown) known.erase(known.begin());
  known.push_back({numbers, load, placed});
  return placed;
}

double PlacedExperts::imbalance(double tokens) const { return beyond_even(rank_, tokens); }
double PlacedExperts::node_imbalance(double tokens) const { return beyond_even(node_, tokens); }

double PlacedExperts::beyond_even(const Fullest& fullest, double tokens) const {
  const double x = std::log2(std::max(1.0, tokens));
  const auto above = std::ranges::upper_bound(log_tokens_, x);
  if (above == log_tokens_.end()) {
    // What chance alone does fades with the root of the tokens.
    const double even = 1 + (fullest.even.back() - 1) * std::exp2((log_tokens_.back() - x) / 2);
    return std::max(1.0, fullest.popular.back() / even);
  }
  const auto i = static_cast<std::size_t>(above - log_tokens_.begin());
  const double share = (x - log_tokens_[i - 1]) / (log_tokens_[i] - log_tokens_[i - 1]);
  const auto at = [&](const std::vector<double>& ratios) {
    return ratios[i - 1] + share * (ratios[i] - ratios[i - 1]);
  };
  return std::max(1.0, at(fullest.popular) / at(fullest.even));
}

RankLoad PlacedExperts::at(double tokens) const {
  const double x = std::log2(std::max(1.0, tokens));
  const auto above = std::ranges::upper_bound(log_tokens_, x);
  if (above == log_tokens_.end()) {
    RankLoad load = loads_.back();
    const double factor = std::exp2(x - log_tokens_.back());
    load.rows *= factor;
    load.fullest *= factor;
    return load;
  }
  const auto i = static_cast<std::size_t>(above - log_tokens_.begin());
  const double share = (x - log_tokens_[i - 1]) / (log_tokens_[i] - log_tokens_[i - 1]);
  // Rows are nearly proportional to tokens, touched experts to their logarithm.
  const auto rows_between = [&](double low, double high) { return low * std::pow(high / low, share); };
  const RankLoad& low = loads_[i - 1];
  const RankLoad& high = loads_[i];
  return {rows_between(low.rows, high.rows), low.distinct + share * (high.distinct - low.distinct),
          rows_between(low.fullest, high.fullest)};
}

}  // namespace moecast
