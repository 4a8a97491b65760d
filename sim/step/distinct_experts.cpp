#include "sim/step/distinct_experts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "models/core/error.h"
#include "models/routing/assignment.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

constexpr std::array<int, 19> kTokenPoints{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024};
constexpr int kDistinctDraws = 200;

/// Of each draw: the token that touches an expert first; kTokenPoints.back() where none does. Draw by draw.
using FirstTouches = std::vector<std::int32_t>;

FirstTouches draw(int experts, int top_k, double sigma, const GroupLimit& limit) {
  FirstTouches touches;
  touches.reserve(static_cast<std::size_t>(kDistinctDraws) * static_cast<std::size_t>(experts));
  RoutingPolicy policy;
  policy.top_k = top_k;
  policy.groups = limit.groups;
  policy.groups_kept = limit.kept;
  Assignment assignment;
  std::vector<std::int32_t> first;
  for (int i = 0; i < kDistinctDraws; ++i) {
    ExpertLoad load;
    load.kind = LoadKind::log_normal;
    load.parameter = sigma;
    load.seed = static_cast<std::uint64_t>(i) + 1;
    Router router(policy, expert_popularity(load, experts));
    Random random(load.seed + 1000);
    router.draw(kTokenPoints.back(), random, assignment);
    first.assign(static_cast<std::size_t>(experts), kTokenPoints.back());
    for (std::size_t token = assignment.tokens(); token-- > 0;) {
      for (const std::int32_t expert : assignment.of(token)) {
        first[static_cast<std::size_t>(expert)] = static_cast<std::int32_t>(token);
      }
    }
    touches.insert(touches.end(), first.begin(), first.end());
  }
  return touches;
}

/// Mean over draws of the touched experts on the rank that touches most, at each of kTokenPoints.
std::vector<double> most_touched(const FirstTouches& touches, int experts, int ranks) {
  std::vector<double> sums(kTokenPoints.size(), 0.0);
  const auto local = static_cast<std::size_t>(experts / ranks);
  std::vector<std::int32_t> of_rank(local);
  std::vector<std::size_t> most(kTokenPoints.size());
  for (auto at = touches.begin(); at != touches.end(); at += experts) {
    std::ranges::fill(most, 0);
    for (int rank = 0; rank < ranks; ++rank) {
      std::copy_n(at + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(rank) * local), local, of_rank.begin());
      std::ranges::sort(of_rank);
      for (std::size_t i = 0; i < kTokenPoints.size(); ++i) {
        const auto touched = std::ranges::lower_bound(of_rank, kTokenPoints[i]) - of_rank.begin();
        most[i] = std::max(most[i], static_cast<std::size_t>(touched));
      }
    }
    for (std::size_t i = 0; i < kTokenPoints.size(); ++i) sums[i] += static_cast<double>(most[i]);
  }
  for (double& sum : sums) sum /= kDistinctDraws;
  return sums;
}

/// Laws and their draws that are kept; a search over thousands of layers goes on from there.
constexpr std::size_t kMostKnownLaws = 4096;
constexpr std::size_t kMostDrawnLaws = 64;

/// Drawn once a process: ranks are cut out of the same draws.
std::vector<double> known_touches(int experts, int top_k, int ranks, double sigma, const GroupLimit& limit) {
  static std::mutex mutex;
  static std::map<std::tuple<int, int, double, GroupLimit>, FirstTouches> drawn;
  static std::map<std::tuple<int, int, int, double, GroupLimit>, std::vector<double>> known;
  const std::lock_guard lock(mutex);
  const auto key = std::tuple(experts, top_k, ranks, sigma, limit);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  const auto draws = std::tuple(experts, top_k, sigma, limit);
  auto touches = drawn.find(draws);
  if (known.size() >= kMostKnownLaws) known.clear();
  if (touches == drawn.end() && drawn.size() >= kMostDrawnLaws) drawn.clear();
  if (touches == drawn.end()) touches = drawn.emplace(draws, draw(experts, top_k, sigma, limit)).first;
  return known.emplace(key, most_touched(touches->second, experts, ranks)).first->second;
}

}  // namespace

DistinctExperts::DistinctExperts(int experts, int top_k, int ranks, double sigma, const GroupLimit& limit) {
  if (ranks < 1 || experts < 1 || experts % ranks != 0) {
    throw InputError("ep", fmt::format("{} ranks do not divide {} experts", ranks, experts));
  }
  for (const int tokens : kTokenPoints) log_tokens_.push_back(std::log2(tokens));
  experts_ = known_touches(experts, top_k, ranks, sigma, limit);
}

double DistinctExperts::at(double tokens) const {
  const double x = std::log2(std::max(1.0, tokens));
  const auto above = std::ranges::upper_bound(log_tokens_, x);
  if (above == log_tokens_.end()) return experts_.back();
  const auto i = static_cast<std::size_t>(above - log_tokens_.begin());
  const double share = (x - log_tokens_[i - 1]) / (log_tokens_[i] - log_tokens_[i - 1]);
  return experts_[i - 1] + share * (experts_[i] - experts_[i - 1]);
}

}  // namespace moecast
