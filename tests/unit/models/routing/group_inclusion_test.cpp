#include "models/routing/group_inclusion.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/assignment.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

std::vector<double> log_normal(int experts, double sigma, std::uint64_t seed) {
  ExpertLoad load;
  load.kind = LoadKind::log_normal;
  load.parameter = sigma;
  load.seed = seed;
  return expert_popularity(load, experts);
}

TEST(GroupInclusion, AgreesWithWhatTheRouterDraws) {
  constexpr int kTokens = 60'000;
  for (const auto& [experts, top_k, groups, kept] : {std::array{256, 8, 8, 4}, std::array{64, 6, 8, 3}}) {
    const std::vector<double> popularity = log_normal(experts, 1, 3);
    const GroupInclusion found = group_inclusion(popularity, top_k, {groups, kept});
    EXPECT_NEAR(std::accumulate(found.chosen.begin(), found.chosen.end(), 0.0), top_k, 1e-6);
    EXPECT_NEAR(std::accumulate(found.kept.begin(), found.kept.end(), 0.0), kept, 1e-6);
    RoutingPolicy policy;
    policy.top_k = top_k;
    policy.groups = groups;
    policy.groups_kept = kept;
    Router router(policy, popularity);
    Random random(5);
    Assignment assignment;
    router.draw(kTokens, random, assignment);
    const std::vector<std::int64_t> rows = assignment.rows_per_expert();
    for (std::size_t e = 0; e < rows.size(); ++e) {
      const double drawn = static_cast<double>(rows[e]) / kTokens;
      const double scatter = 4 * std::sqrt(drawn / kTokens);
      EXPECT_NEAR(found.chosen[e], drawn, 0.04 * drawn + scatter) << e << " of " << experts;
    }
  }
}

TEST(GroupInclusion, OfAllGroupsIsThatWithoutGroups) {
  const std::vector<double> popularity = log_normal(64, 1, 1);
  const std::vector<double> free = inclusion_probability(popularity, 6);
  const GroupInclusion all = group_inclusion(popularity, 6, {4, 4});
  for (const double kept : all.kept) EXPECT_NEAR(kept, 1, 1e-9);
  for (std::size_t e = 0; e < free.size(); ++e) EXPECT_NEAR(all.chosen[e] / free[e], 1, 0.04);
  EXPECT_THROW(group_inclusion(popularity, 6, {5, 2}), InputError);
  EXPECT_THROW(group_inclusion(popularity, 33, {4, 2}), InputError);
}

}  // namespace
}  // namespace moecast
