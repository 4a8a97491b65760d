#include "models/routing/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/inclusion.h"

namespace moecast {
namespace {

double row_sum(const std::vector<RowGroup>& groups) {
  double sum = 0;
  for (const RowGroup& group : groups) sum += group.rows * group.experts;
  return sum;
}

ExpertLoad load_of(LoadKind kind, double parameter) { return {kind, parameter, {}, 1}; }

TEST(ExpertPopularity, SumsToOneForEveryLoad) {
  for (const auto& load : {load_of(LoadKind::uniform, 0), load_of(LoadKind::zipf, 1.2), load_of(LoadKind::power_law, 1),
                           load_of(LoadKind::dirichlet, 0.6), load_of(LoadKind::log_normal, 1.05)}) {
    const auto popularity = expert_popularity(load, 64);
    EXPECT_NEAR(std::accumulate(popularity.begin(), popularity.end(), 0.0), 1, 1e-12);
  }
}

TEST(ExpertPopularity, RefusesWhatIsNoLoad) {
  EXPECT_THROW(expert_popularity({LoadKind::histogram, 0, {1, -1}, 1}, 2), InputError);
  EXPECT_THROW(expert_popularity({LoadKind::histogram, 0, {1, 1}, 1}, 3), InputError);
  EXPECT_THROW(expert_popularity({LoadKind::histogram, 0, {0, 0}, 1}, 2), InputError);
  EXPECT_THROW(expert_popularity({LoadKind::histogram, 0, {1.7e308, 1.7e308}, 1}, 2), InputError);
  EXPECT_THROW(expert_popularity({}, 0), InputError);
}

TEST(ExpectedDistinctExperts, MatchesThePublishedUniformValues) {
  // E (1 - (1 - k/E)^T): Mixtral 8/2 at T = 2: 8 (1 - 0.5625) = 3.5; DeepSeek-V3 256/8 at T = 32: 163.
  EXPECT_NEAR(expected_distinct_experts(expert_popularity({}, 8), 2, 2), 3.5, 1e-9);
  EXPECT_NEAR(expected_distinct_experts(expert_popularity({}, 256), 32, 8), 163, 0.5);
}

TEST(ExpectedRows, AgreesWithMonteCarloWithinOnePercent_B1) {
  for (const auto& [load, experts, top_k, tokens] : {std::tuple{load_of(LoadKind::uniform, 0), 16, 2, 24},
                                                     {load_of(LoadKind::zipf, 1.0), 32, 4, 40},
                                                     {load_of(LoadKind::zipf, 1.5), 8, 3, 10},
                                                     {load_of(LoadKind::log_normal, 1.05), 128, 8, 64}}) {
    const auto popularity = expert_popularity(load, experts);
    double distinct = 0;
    std::vector<double> mean(static_cast<std::size_t>(experts), 0.0);
    constexpr int kDraws = 3000;
    for (int draw = 0; draw < kDraws; ++draw) {
      const auto rows = sample_rows(popularity, tokens, top_k, static_cast<std::uint64_t>(draw));
      for (const auto r : rows) distinct += (r > 0 ? 1.0 : 0.0) / kDraws;
      for (std::size_t e = 0; e < mean.size(); ++e) mean[e] += static_cast<double>(rows[e]) / kDraws;
    }
    EXPECT_NEAR(expected_distinct_experts(popularity, tokens, top_k) / distinct, 1, 0.01);
    // Rows that the closed form gives to the wrong expert, of all rows; the scatter of the draws is a third of it.
    const auto inclusion = inclusion_probability(popularity, top_k);
    double misplaced = 0;
    for (std::size_t e = 0; e < mean.size(); ++e) misplaced += std::abs(inclusion[e] * tokens - mean[e]) / 2;
    EXPECT_LT(misplaced / (tokens * top_k), 0.01);
    double experts_touched = 0;
    for (const RowGroup& group : expected_rows(popularity, tokens, top_k)) experts_touched += group.experts;
    EXPECT_NEAR(experts_touched / distinct, 1, 0.02);  // classes of unlike experts are averaged
  }
}

RC_GTEST_PROP(ExpectedRows, ConservesAllRows, ()) {
  const auto experts = *rc::gen::inRange<std::int64_t>(1, 200);
  const auto top_k = *rc::gen::inRange<int>(1, static_cast<int>(std::min<std::int64_t>(experts, 10)) + 1);
  const auto tokens = *rc::gen::inRange<std::int64_t>(1, 5000);
  const auto exponent = *rc::gen::inRange(0, 20) / 10.0;
  const auto groups = expected_rows(expert_popularity(load_of(LoadKind::zipf, exponent), experts), tokens, top_k);
  const double total = static_cast<double>(tokens * top_k);
  RC_ASSERT(std::abs(row_sum(groups) - total) < 1e-6 * total);
  RC_ASSERT(groups.size() <= 12U);
  for (const RowGroup& group : groups) RC_ASSERT(group.rows >= 1 - 1e-9);
}

RC_GTEST_PROP(SampleRows, GivesEveryTokenKDistinctExperts, ()) {
  const auto experts = *rc::gen::inRange<std::int64_t>(1, 40);
  const auto top_k = *rc::gen::inRange<int>(1, static_cast<int>(experts) + 1);
  const auto tokens = *rc::gen::inRange<std::int64_t>(1, 30);
  const auto rows = sample_rows(expert_popularity({}, experts), tokens, top_k, 7);
  RC_ASSERT(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}) == tokens * top_k);
  for (const auto r : rows) RC_ASSERT(r <= tokens);
}

TEST(ExpectedRows, ConservesRowsWhereAnExpertIsNearlySure) {
  const auto groups = expected_rows(expert_popularity(load_of(LoadKind::zipf, 1.8), 11), 1, 9);
  EXPECT_NEAR(row_sum(groups), 9, 9e-9);
}

TEST(GroupRows, CountsEqualExpertsOnce) {
  const auto groups = group_rows({3, 0, 1, 3});
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].rows, 1);
  EXPECT_EQ(groups[1].experts, 2);
  EXPECT_THROW(group_rows({-1}), InputError);
}

TEST(ExpertPopularity, RefusesConcentrationsThatNoDoubleHolds) {
  for (const double alpha : {0.0, 1e-3, -1.0, std::nan("")}) {
    ExpertLoad load{LoadKind::dirichlet, alpha, {}, 1};
    EXPECT_THROW(expert_popularity(load, 8), InputError) << alpha;
  }
  for (const double alpha : {0.01, 1.0, 1e6}) {
    double sum = 0;
    for (const double w : expert_popularity({LoadKind::dirichlet, alpha, {}, 1}, 64)) sum += w;
    EXPECT_NEAR(sum, 1, 1e-9) << alpha;
  }
}

}  // namespace
}  // namespace moecast
