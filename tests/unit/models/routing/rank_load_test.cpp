#include "models/routing/rank_load.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <array>
#include <utility>

#include "models/core/error.h"

namespace moecast {
namespace {

TEST(TimedRankLoad, BalancedTouchesEveryExpertOnce) {
  // 4 tokens x 8 slots with stride 256 / 8 = 32: 32 different experts, one row each.
  const RankLoad load = timed_rank_load(4, 8, 256, 1, 0);
  EXPECT_EQ(load.rows, 32);
  EXPECT_EQ(load.distinct, 32);
  EXPECT_EQ(load.fullest, 1);
}

TEST(TimedRankLoad, BalancedOfManyTokensIsTheSameForEveryExpert) {
  // 512 tokens x 8 slots over 256 experts: 16 rows each; rank 0 of 4 holds 64 experts.
  const RankLoad load = timed_rank_load(512, 8, 256, 4, 0);
  EXPECT_EQ(load.rows, 64 * 16);
  EXPECT_EQ(load.distinct, 64);
  EXPECT_EQ(load.fullest, 16);
}

TEST(TimedRankLoad, AnExpertGetsNoTokenTwiceWhereSlotsComeRound) {
  for (const std::int64_t tokens : {1, 5, 100}) {
    const RankLoad load = timed_rank_load(tokens, 43, 68, 1, 0);
    EXPECT_EQ(load.rows, static_cast<double>(tokens) * 43);
    EXPECT_LE(load.fullest, static_cast<double>(tokens));
  }
}

TEST(TimedRankLoad, FewBalancedTokensAlwaysReachRankZero) {
  const RankLoad load = timed_rank_load(1, 1, 128, 32, 0);
  EXPECT_EQ(load.rows, 1);
  EXPECT_EQ(load.distinct, 1);
}

TEST(TimedRankLoad, PowerLawTouchesAlmostAsManyExpertsAsThereAreRowsWhenTokensAreFew) {
  // The times of H200 imply 34, 65, 101 experts at 4, 8, 16 tokens: what rounding left over is dealt to the emptiest.
  const RankLoad load = timed_rank_load(4, 8, 256, 1, 1.2);
  EXPECT_EQ(load.rows, 32);
  EXPECT_GT(load.distinct, 20);
  EXPECT_LE(load.distinct, 32);
}

TEST(TimedRankLoad, TheFullestRankGetsMoreThanItsShare) {
  const RankLoad skewed = timed_rank_load(4096, 8, 256, 8, 1.2);
  EXPECT_GT(skewed.rows, 1.05 * 4096 * 8 / 8);
  EXPECT_LT(skewed.rows, 4096.0 * 8);
  EXPECT_LE(skewed.fullest, 4096);
}

RC_GTEST_PROP(TimedRankLoad, KeepsItsInvariants, ()) {
  const std::int64_t ranks = *rc::gen::element<std::int64_t>(1, 2, 4, 8);
  const std::int64_t experts = ranks * *rc::gen::inRange<std::int64_t>(1, 33);
  const std::int64_t top_k = *rc::gen::inRange<std::int64_t>(1, experts + 1);
  const std::int64_t tokens = *rc::gen::inRange<std::int64_t>(1, 3000);
  const double alpha = *rc::gen::element(0.0, 0.8, 1.0, 1.01, 1.2, 2.0);
  const RankLoad load = timed_rank_load(tokens, top_k, experts, ranks, alpha);
  const auto most = static_cast<double>(tokens);
  RC_ASSERT(load.distinct <= static_cast<double>(experts / ranks) + 1e-9);
  RC_ASSERT(load.fullest <= most + 1e-9);
  RC_ASSERT(load.rows <= load.distinct * load.fullest + 1e-6 || alpha > 0);
  RC_ASSERT(load.rows <= most * static_cast<double>(std::min(top_k, experts / ranks)) + 1e-6);
  if (ranks == 1) RC_ASSERT(std::abs(load.rows - most * static_cast<double>(top_k)) < 1e-6);
}

TEST(WholeTokens, AreComputedWhereOneSlotLies) {
  // 4096 balanced tokens of 8 slots: every token comes to each of up to 8 ranks, half of them to one of 16.
  for (const auto& [ranks, share] : {std::pair{2, 1.0}, std::pair{8, 1.0}, std::pair{16, 0.5}, std::pair{32, 0.25}}) {
    const RankLoad own = timed_rank_load(4096, 8, 256, ranks, 0);
    const RankLoad whole = with_whole_tokens(own, 4096, 8, 0);
    EXPECT_NEAR(whole.rows, 4096 * 8 * share, 1e-6) << ranks;
    EXPECT_EQ(whole.distinct, own.distinct);
    EXPECT_NEAR(whole.fullest / whole.rows, own.fullest / own.rows, 1e-9);
  }
  const RankLoad skewed = timed_rank_load(4096, 8, 256, 64, 1.2);
  const RankLoad whole = with_whole_tokens(skewed, 4096, 8, 1.2);
  EXPECT_GT(whole.rows, skewed.rows);
  EXPECT_LE(whole.rows, 4096 * 8);
}

TEST(TimedRankLoad, RefusesWhatIsNoRouting) {
  EXPECT_THROW(timed_rank_load(1, 9, 8, 1, 0), InputError);
  EXPECT_THROW(timed_rank_load(1, 1, 0, 1, 0), InputError);
  EXPECT_THROW(timed_rank_load(1, 1, 8, 3, 0), InputError);
  EXPECT_THROW(timed_rank_load(0, 1, 8, 1, 0), InputError);
  EXPECT_THROW(timed_rank_load(std::int64_t{1} << 41, 1, 8, 1, 0), InputError);
  EXPECT_THROW(timed_rank_load(1, 1, 8, 1, -1), InputError);
}

TEST(TimedRankLoad, AnswersTerasOfTokensAtOnce) {
  const std::int64_t tokens = 1'000'000'000'000;
  EXPECT_EQ(timed_rank_load(tokens, 2, 8, 1, 0).rows, 2e12);
  EXPECT_NEAR(timed_rank_load(tokens, 2, 8, 1, 1.2).rows, 2e12, 1);
}

TEST(RankLoadOf, CountsAHistogram) {
  const std::array<double, 4> rows{0, 3, 1, 0};
  const RankLoad load = rank_load_of(rows);
  EXPECT_EQ(load.rows, 4);
  EXPECT_EQ(load.distinct, 2);
  EXPECT_EQ(load.fullest, 3);
}

TEST(RankLoadCache, AnswersTheSame) {
  RankLoadCache cache;
  for (int i = 0; i < 2; ++i) EXPECT_EQ(cache(64, 8, 256, 8, 1.2).rows, timed_rank_load(64, 8, 256, 8, 1.2).rows);
}

}  // namespace
}  // namespace moecast
