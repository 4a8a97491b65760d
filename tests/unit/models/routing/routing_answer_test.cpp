#include "models/routing/routing_answer.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
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
