#include "models/routing/inclusion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

ExpertLoad load_like(LoadKind kind, double parameter) { return {kind, parameter, {}, 1}; }

TEST(InclusionProbability, QuickIsWithinOnePercentOfEachExpert_B5) {
  using Case = std::pair<LoadKind, double>;
  for (const auto& [kind, parameter] :
       {Case{LoadKind::zipf, 0.5}, Case{LoadKind::zipf, 1}, Case{LoadKind::zipf, 1.5}, Case{LoadKind::zipf, 3},
        Case{LoadKind::log_normal, 1}, Case{LoadKind::log_normal, 3}, Case{LoadKind::dirichlet, 0.1},
        Case{LoadKind::power_law, 1.2}}) {
    for (const int experts : {17, 32, 64, 128, 256}) {
      const auto popularity = expert_popularity(load_like(kind, parameter), experts);
      for (const int k : {2, 4, 8, 16}) {
        const auto quick = inclusion_probability(popularity, k);
        const auto exact = inclusion_probability(popularity, k, Inclusion::exact);
        EXPECT_NEAR(std::accumulate(quick.begin(), quick.end(), 0.0), k, 1e-9);
        for (std::size_t e = 0; e < quick.size(); ++e) {
          if (exact[e] < 1e-4) continue;
          ASSERT_NEAR(quick[e] / exact[e], 1, 0.011)
              << to_string(kind) << ":" << parameter << ", " << k << " of " << experts << ", expert " << e;
        }
      }
    }
  }
}

TEST(InclusionProbability, KeepsAllRowsWhateverTheZeros) {
  for (const int k : {1, 2, 3}) {
    std::vector<double> popularity{0.6, 0, 0.3, 0.1, 0};
    const auto inclusion = inclusion_probability(popularity, k);
    EXPECT_NEAR(std::accumulate(inclusion.begin(), inclusion.end(), 0.0), k, 1e-9);
    EXPECT_EQ(inclusion[1], 0);
    for (const double p : inclusion) EXPECT_LE(p, 1);
  }
}

TEST(InclusionProbability, SeesRatesOfAnyRatio) {
  // By hand: the second expert is the second or the third one, 1e-9 to 3e-9.
  const auto inclusion = inclusion_probability({1 - 4e-9, 1e-9, 3e-9}, 2);
  EXPECT_NEAR(inclusion[0], 1, 1e-6);
  EXPECT_NEAR(inclusion[1], 0.25, 1e-6);
  EXPECT_NEAR(inclusion[2], 0.75, 1e-6);
  for (const int experts : {8, 256}) {
    const auto steep = inclusion_probability(expert_popularity(load_like(LoadKind::zipf, 50), experts), 4);
    EXPECT_NEAR(std::accumulate(steep.begin(), steep.end(), 0.0), 4, 1e-9);
    for (std::size_t e = 0; e < 4; ++e) EXPECT_NEAR(steep[e], 1, 1e-3) << experts;
  }
}

TEST(InclusionProbability, IsExactOfManyExpertsWhereAsked_B5) {
  constexpr int kTokens = 200'000;
  const auto popularity = expert_popularity(load_like(LoadKind::zipf, 1), 128);
  const auto exact = inclusion_probability(popularity, 2, Inclusion::exact);
  const auto rows = sample_rows(popularity, kTokens, 2, 3);
  for (std::size_t e = 0; e < 128; ++e) {
    const double mean = kTokens * exact[e];
    EXPECT_NEAR(static_cast<double>(rows[e]), mean, 0.005 * mean + 5 * std::sqrt(mean)) << e;
  }
}

TEST(InclusionProbability, RefusesToChooseMoreThanThereIs) {
  try {
    static_cast<void>(inclusion_probability({1, 0, 0}, 2));
    FAIL();
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("gives 1 of 3 experts a weight, but every token chooses 2"));
  }
}

}  // namespace
}  // namespace moecast
