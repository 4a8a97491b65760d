#include "models/routing/rank_load.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "models/core/error.h"
#include "models/routing/balanced_assignment.h"
#include "models/routing/group_limited_load.h"
#include "models/routing/power_law.h"

namespace moecast {
namespace {

constexpr int kDraws = 16;
constexpr int kRepairs = 8;
constexpr std::int64_t kMostTokens = std::int64_t{1} << 40;

using Counts = std::vector<std::int64_t>;

/// SplitMix64: the same numbers on every machine.
class Uniform {
 public:
  double operator()() {
    state_ += 0x9e3779b97f4a7c15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
  }

 private:
  std::uint64_t state_ = 12345;
};

/// Adds units one by one to a smallest entry, none above the cap.
void fill_lowest(std::int64_t* begin, std::size_t size, std::int64_t units, std::int64_t cap) {
  std::sort(begin, begin + size);
  std::int64_t sum = 0;
  std::int64_t below = 0;
  std::size_t filled = 0;
  for (std::size_t j = 1; j <= size; ++j) {
    sum += begin[j - 1];
    if (begin[j - 1] * static_cast<std::int64_t>(j) - sum > units) break;
    filled = j;
    below = sum;
  }
  filled = std::max<std::size_t>(filled, 1);
  if (filled == 1) below = begin[0];
  const auto count = static_cast<std::int64_t>(filled);
  const std::int64_t total = below + units;
  std::int64_t level = total / count;
  if (total % count < 0) --level;  // entries are negative while the fullest are shaved
  const std::int64_t rest = total - level * count;
  for (std::int64_t j = 0; j < count; ++j) {
    const std::int64_t wanted = level + (j < rest ? 1 : 0);
    begin[j] = std::max(begin[j], std::min(wanted, cap));
  }
}

/// Makes the sum `rows` again after rounding: equal shares a rank.
void repair_sum(Counts& counts, std::int64_t rows, std::int64_t ranks, std::int64_t tokens) {
  const std::size_t local = counts.size() / static_cast<std::size_t>(ranks);
  for (int pass = 0; pass < kRepairs; ++pass) {
    const std::int64_t missing = rows - std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    if (missing == 0) return;
    const std::int64_t units = std::abs(missing);
    const bool shave = missing < 0;
    if (shave) std::transform(counts.begin(), counts.end(), counts.begin(), std::negate<>());
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      const std::int64_t share = units / ranks + (rank < units % ranks ? 1 : 0);
      fill_lowest(counts.data() + static_cast<std::size_t>(rank) * local, local, share, shave ? 0 : tokens);
    }
    if (shave) std::transform(counts.begin(), counts.end(), counts.begin(), std::negate<>());
  }
}

RankLoad load_of(const std::int64_t* begin, std::size_t size) {
  RankLoad load;
  for (std::size_t i = 0; i < size; ++i) {
    const auto rows = static_cast<double>(begin[i]);
    load.rows += rows;
    load.distinct += rows > 0 ? 1 : 0;
    load.fullest = std::max(load.fullest, rows);
  }
  return load;
}

RankLoad balanced(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks) {
  const BalancedAssignment assignment(tokens, top_k, experts);
  // Every `experts` tokens it starts again, after top_k rows an expert.
  const std::int64_t cycles = assignment.starts_again() ? tokens / experts : 0;
  Counts counts(static_cast<std::size_t>(experts), cycles * top_k);
  const std::int64_t rest = tokens - cycles * experts;
  for (std::int64_t token = 0; token < rest; ++token) {
    for (std::int64_t slot = 0; slot < top_k; ++slot) {
      ++counts[static_cast<std::size_t>(assignment.expert(token, slot))];
    }
  }
  return load_of(counts.data(), static_cast<std::size_t>(experts / ranks));
}

RankLoad power_law(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks, double alpha) {
  const std::int64_t rows = tokens * top_k;
  const PowerLaw law(tokens, top_k, experts, alpha);
  const std::size_t local = static_cast<std::size_t>(experts / ranks);
  Uniform uniform;
  std::vector<double> weights(static_cast<std::size_t>(experts));
  Counts counts(weights.size());
  RankLoad mean;
  for (int draw = 0; draw < kDraws; ++draw) {
    for (double& weight : weights) weight = law.weight(uniform());
    law.rows(weights, counts);
    repair_sum(counts, rows, ranks, tokens);
    RankLoad fullest;
    for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks); ++rank) {
      const RankLoad load = load_of(counts.data() + rank * local, local);
      if (load.rows > fullest.rows) fullest = load;
    }
    mean.rows += fullest.rows / kDraws;
    mean.distinct += fullest.distinct / kDraws;
    mean.fullest += fullest.fullest / kDraws;
  }
  return mean;
}

}  // namespace

RankLoad rank_load_of(std::span<const double> rows_per_expert) {
  RankLoad load;
  for (const double rows : rows_per_expert) {
    load.rows += rows;
    load.distinct += rows > 0 ? 1 : 0;
    load.fullest = std::max(load.fullest, rows);
  }
  return load;
}

RankLoad timed_rank_load(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks,
                         double alpha) {
  constexpr std::int64_t kMostOfLayer = 1 << 20;
  if (experts < 1 || experts > kMostOfLayer || top_k < 1 || top_k > experts) {
    throw InputError("", "top-k " + std::to_string(top_k) + " of " + std::to_string(experts) + " experts is no routing",
                     "1 <= top-k <= experts <= 1048576");
  }
  if (ranks < 1 || experts % ranks != 0) {
    throw InputError("", std::to_string(experts) + " experts do not divide over " + std::to_string(ranks) + " ranks");
  }
  if (tokens < 1 || tokens > kMostTokens) {
    throw InputError("", std::to_string(tokens) + " tokens are outside 1 to 2^40");
  }
  if (!(alpha >= 0) || alpha > 10) throw InputError("", "the exponent of a power law lies between 0 and 10");
  return alpha == 0 ? balanced(tokens, top_k, experts, ranks) : power_law(tokens, top_k, experts, ranks, alpha);
}

RankLoad with_whole_tokens(const RankLoad& load, std::int64_t tokens, std::int64_t top_k, double alpha) {
  const auto all = static_cast<double>(tokens);
  const auto slots = static_cast<double>(top_k);
  const double share = std::min(1.0, load.rows / (all * slots));
  // Balanced slots of a token lie as far apart as they can; skewed ones fall as they may.
  const double coming = alpha == 0 ? std::min(all, load.rows) : all * (1 - std::pow(1 - share, slots));
  RankLoad whole = load;
  whole.rows = std::max(load.rows, coming * slots);
  if (load.rows > 0) whole.fullest = load.fullest * whole.rows / load.rows;
  return whole;
}

std::size_t RankLoadCache::Hash::operator()(const Key& key) const noexcept {
  std::size_t hash = std::hash<double>()(key.alpha);
  for (const std::int64_t part : {key.tokens, key.top_k, key.experts, key.ranks}) {
    hash = hash * 0x9e3779b97f4a7c15ULL + static_cast<std::size_t>(part);
    hash ^= hash >> 29;
  }
  return hash;
}

RankLoad RankLoadCache::operator()(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks,
                                   double alpha) {
  const Key key{tokens, top_k, experts, ranks, alpha};
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  return known_.emplace(key, timed_rank_load(tokens, top_k, experts, ranks, alpha)).first->second;
}

RankLoad RankLoadCache::grouped(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks,
                                double alpha) {
  const auto [known, fresh] = grouped_.try_emplace({tokens, top_k, experts, ranks, alpha});
  if (fresh) known->second = group_limited_load(tokens, top_k, experts, ranks, alpha, {});
  return known->second;
}

}  // namespace moecast
