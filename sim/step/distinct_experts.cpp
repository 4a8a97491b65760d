#include "sim/step/distinct_experts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <mutex>
#include <tuple>

#include "models/core/error.h"
#include "models/routing/assignment.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

constexpr std::array<int, 19> kTokens{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024};
constexpr int kDraws = 200;

using Drawn = std::array<double, kTokens.size()>;

Drawn draw(int experts, int top_k, int ranks, double sigma) {
  Drawn sums{};
  RoutingPolicy policy;
  policy.top_k = top_k;
  Assignment assignment;
  const int local = experts / ranks;
  std::vector<char> touched;
  std::vector<int> on_rank;
  for (int i = 0; i < kDraws; ++i) {
    ExpertLoad load;
    load.kind = LoadKind::log_normal;
    load.parameter = sigma;
    load.seed = static_cast<std::uint64_t>(i) + 1;
    Router router(policy, expert_popularity(load, experts));
    Random random(load.seed + 1000);
    router.draw(kTokens.back(), random, assignment);
    touched.assign(static_cast<std::size_t>(experts), 0);
    on_rank.assign(static_cast<std::size_t>(ranks), 0);
    std::size_t token = 0;
    for (std::size_t at = 0; at < kTokens.size(); ++at) {
      for (; token < static_cast<std::size_t>(kTokens[at]); ++token) {
        for (const std::int32_t expert : assignment.of(token)) {
          char& seen = touched[static_cast<std::size_t>(expert)];
          if (seen == 0) ++on_rank[static_cast<std::size_t>(expert / local)];
          seen = 1;
        }
      }
      sums[at] += *std::ranges::max_element(on_rank);
    }
  }
  for (double& sum : sums) sum /= kDraws;
  return sums;
}

}  // namespace

DistinctExperts::DistinctExperts(int experts, int top_k, int ranks, double sigma) {
  if (ranks < 1 || experts < 1 || experts % ranks != 0) {
    throw InputError("ep", fmt::format("{} ranks do not divide {} experts", ranks, experts));
  }
  static std::mutex mutex;
  static std::map<std::tuple<int, int, int, double>, Drawn> known;
  const std::lock_guard lock(mutex);
  const auto key = std::tuple(experts, top_k, ranks, sigma);
  auto found = known.find(key);
  if (found == known.end()) found = known.emplace(key, draw(experts, top_k, ranks, sigma)).first;
  for (const int tokens : kTokens) log_tokens_.push_back(std::log2(tokens));
  experts_.assign(found->second.begin(), found->second.end());
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
