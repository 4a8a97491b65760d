#include "models/routing/routing_answer.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

RoutingQuestion question(int experts, int top_k, std::int64_t tokens, double zipf, int samples) {
  RoutingQuestion q;
  q.policy.top_k = top_k;
  q.popularity = expert_popularity({LoadKind::zipf, zipf, {}, 1}, experts);
  q.tokens = tokens;
  q.placement = contiguous_placement(experts, 4);
  q.samples = samples;
  q.flops_per_row = 10;
  return q;
}

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

TEST(RoutingAnswer, SamplesAreTheClosedFormWithinAPercent_B5) {
  for (const double skew : {0.0, 0.8}) {
    const RoutingAnswer expected = answer_routing(question(16, 2, 20'000, skew, 0));
    const RoutingAnswer sampled = answer_routing(question(16, 2, 20'000, skew, 60));
    EXPECT_TRUE(expected.expected);
    EXPECT_FALSE(sampled.expected);
    for (std::size_t e = 0; e < 16; ++e) {
      EXPECT_NEAR(sampled.rows_per_expert[e] / expected.rows_per_expert[e], 1, 0.01) << skew << " " << e;
    }
    EXPECT_NEAR(sampled.copies.total() / expected.copies.total(), 1, 0.01);
    EXPECT_NEAR(sampled.experts.cv_squared, expected.experts.cv_squared, 0.01 * (1 + expected.experts.cv_squared));
    EXPECT_EQ(sampled.kept, 40'000);
  }
}

TEST(RoutingAnswer, SamplesAreTheClosedFormWithCopiesToo_B5) {
  for (const auto by : {Deduplication::per_rank, Deduplication::per_node}) {
    RoutingQuestion asked = question(8, 2, 64, 1, 0);
    asked.placement = balanced_placement(inclusion_probability(asked.popularity, 2), 4, 3);
    asked.deduplication = by;
    asked.ranks_per_node = 2;
    ASSERT_GT(asked.placement.copies(), 8U);
    const RoutingAnswer expected = answer_routing(asked);
    asked.samples = 20'000;
    const RoutingAnswer sampled = answer_routing(asked);
    EXPECT_NEAR(sampled.copies.total() / expected.copies.total(), 1, 0.003);
    for (int from = 0; from < 4; ++from) {
      for (int to = 0; to < 4; ++to) {
        EXPECT_NEAR(sampled.copies.at(from, to), expected.copies.at(from, to), 0.01 * expected.copies.at(from, to))
            << from << " " << to;
      }
    }
  }
}

TEST(RoutingAnswer, MetricsOfAnExpectationComeWithThoseOfSingleRoutings) {
  // 64 tokens of 8 among 256 experts: two rows each on average, which no routing gives to all.
  const RoutingAnswer few = answer_routing(question(256, 8, 64, 0, 0));
  EXPECT_NEAR(few.experts.max_over_mean, 1, 1e-9);
  ASSERT_TRUE(few.sampled);
  const RoutingAnswer drawn = answer_routing(question(256, 8, 64, 0, 400));
  EXPECT_FALSE(drawn.sampled) << "samples are asked for anyway";
  EXPECT_NEAR(few.sampled->experts.max_over_mean / drawn.experts.max_over_mean, 1, 0.03);
  EXPECT_NEAR(few.sampled->experts.gini / drawn.experts.gini, 1, 0.03);
  EXPECT_NEAR(few.sampled->ranks.cv_squared / drawn.ranks.cv_squared, 1, 0.3);
  RoutingQuestion hash = question(8, 1, 4, 0, 0);
  hash.policy.kind = RoutingPolicyKind::hash;
  EXPECT_NEAR(answer_routing(hash).experts.max_over_mean, 1, 1e-9);
  EXPECT_GE(answer_routing(hash).sampled->experts.max_over_mean, 2) << "four tokens reach at most half of them";
  EXPECT_FALSE(answer_routing(question(256, 8, 1 << 24, 0, 0)).sampled) << "too many to draw by the way";
}

TEST(RoutingAnswer, APartOfASegmentDecidesToo_C19) {
  // 64 tokens in segments of 48: two decisions; of 100: one, and so exactly k experts have rows.
  for (const int unit : {48, 100}) {
    RoutingQuestion asked = question(8, 2, 64, 0, 0);
    asked.policy.tokens_per_decision = unit;
    const double expected = answer_routing(asked).distinct_experts;
    asked.samples = 5000;
    EXPECT_NEAR(expected, answer_routing(asked).distinct_experts, 0.05) << unit;
    EXPECT_GE(expected, 2 - 1e-9);
  }
}

TEST(RoutingAnswer, DroplessRowsFillBlocksOnly_C23) {
  // One draw: what is computed is each expert's rows, rounded up to blocks of 128, as MegaBlocks does.
  RoutingQuestion asked = question(16, 2, 3000, 1, 1);
  const RoutingAnswer plain = answer_routing(asked);
  EXPECT_EQ(plain.padded, 0);
  asked.row_block = 128;
  const RoutingAnswer blocks = answer_routing(asked);
  EXPECT_EQ(blocks.rows_per_expert, plain.rows_per_expert);
  EXPECT_EQ(blocks.dropped, 0);
  EXPECT_EQ(blocks.kept, 6000);
  double computed = 0;
  for (const double rows : plain.rows_per_expert) computed += std::ceil(rows / 128) * 128;
  EXPECT_EQ(blocks.padded, computed - 6000);
  EXPECT_LE(blocks.padded, 16 * 127);
  EXPECT_EQ(blocks.wasted_flops, blocks.padded * 10);
  // Padded to the fullest expert instead, as a fixed capacity would be.
  const double fullest = *std::max_element(plain.rows_per_expert.begin(), plain.rows_per_expert.end());
  EXPECT_LT(blocks.padded, fullest * 16 - 6000);
  asked.samples = 0;
  EXPECT_FALSE(has_expected_routing(asked));
  asked.row_block = 0;
  EXPECT_THROW(answer_routing(asked), InputError);
}

RC_GTEST_PROP(RoutingAnswer, EveryRowIsKeptDroppedOrQueued_A8, ()) {
  RoutingQuestion asked = question(16, *rc::gen::inRange(1, 5), *rc::gen::inRange(1, 400), 1, 2);
  asked.capacity.eval_factor = *rc::gen::element(0.5, 1.0, 1.3);
  asked.capacity.rounding = *rc::gen::element(CapacityRounding::ceil, CapacityRounding::floor);
  asked.capacity.overflow = *rc::gen::element(Overflow::drop, Overflow::next_best, Overflow::queue);
  asked.capacity.pad = *rc::gen::arbitrary<bool>();
  asked.policy.tokens_per_decision = *rc::gen::inRange(1, 9);
  const RoutingAnswer answer = answer_routing(asked);
  const double chosen = sum(answer.asked);
  RC_ASSERT(std::abs(chosen - static_cast<double>(asked.tokens * asked.policy.top_k)) < 1e-6 * chosen);
  RC_ASSERT(std::abs(answer.kept + answer.dropped + answer.queued - chosen) < 1e-6 * chosen);
  RC_ASSERT(std::abs(sum(answer.rows_per_rank) - answer.kept) < 1e-6 * chosen);
  for (const double rows : answer.rows_per_expert) RC_ASSERT(rows <= static_cast<double>(*answer.slots) + 1e-9);
  const double slots = static_cast<double>(*answer.slots) * 16;
  RC_ASSERT(std::abs(answer.padded - (asked.capacity.pad ? slots - answer.kept : 0)) < 1e-6 * (slots + 1));
}

}  // namespace
}  // namespace moecast
