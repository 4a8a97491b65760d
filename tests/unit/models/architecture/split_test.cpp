#include "models/architecture/split.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/architecture/accounting.h"
#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::int64_t kHidden = 512;

MoeBlock coarse() {
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = 256;
  moe.experts = {{16, expert, ""}};
  moe.router.top_k = 2;
  return moe;
}

double router_share(const MoeBlock& moe) { return router_parameters(moe.router, moe.expert_count(), kHidden); }

TEST(SplitExperts, HalvesCostTheSameWeightsAndFlopsButMoreCalls_C15) {
  const MoeBlock whole = coarse();
  const MoeBlock halves = split_experts(whole, 2);
  EXPECT_EQ(halves.expert_count(), 32);
  EXPECT_EQ(halves.router.top_k, 4);
  const ParameterCount before = block_parameters(whole, kHidden);
  const ParameterCount after = block_parameters(halves, kHidden);
  EXPECT_EQ(after.routed_experts, before.routed_experts);
  EXPECT_EQ(after.active - router_share(halves), before.active - router_share(whole));
  // FLOPs of the experts that one token uses: k rows of one expert each.
  const auto flops = [](const MoeBlock& moe) {
    return expert_flops(moe.experts[0].expert, kHidden, moe.router.top_k).value();
  };
  EXPECT_EQ(flops(halves), flops(whole));
  // Each of 64 tokens travels to twice as many experts, and more experts are touched.
  const auto touched = [](const MoeBlock& moe, double tokens) {
    const auto experts = static_cast<double>(moe.expert_count());
    return experts * (1 - std::pow(1 - moe.router.top_k / experts, tokens));
  };
  EXPECT_GT(touched(halves, 4), touched(whole, 4));
}

TEST(SplitExperts, OnePartChangesNothing_C15) { EXPECT_EQ(split_experts(coarse(), 1), coarse()); }

TEST(SplitExperts, RefusesPartsThatDoNotDivide) {
  EXPECT_THROW(split_experts(coarse(), 3), InputError);
  EXPECT_THROW(split_experts(coarse(), 0), InputError);
  MoeBlock attending = coarse();
  attending.experts[0].expert.kind = ExpertKind::transformer;
  EXPECT_THROW(split_experts(attending, 2), InputError) << "halves would attend twice";
}

TEST(SplitExperts, OfAModelAreThoseOfEachOfItsBlocks_C15) {
  Architecture model;
  model.hidden = kHidden;
  model.decoder = {{{AttentionBlock(), coarse()}}, {{coarse()}}};
  const Architecture fine = split_experts(model, 4);
  EXPECT_EQ(std::get<MoeBlock>(fine.decoder[0].blocks[1]), split_experts(coarse(), 4));
  EXPECT_EQ(std::get<MoeBlock>(fine.decoder[1].blocks[0]), split_experts(coarse(), 4));
  EXPECT_EQ(fine.decoder[0].blocks[0], model.decoder[0].blocks[0]);
  EXPECT_THROW(split_experts(model, 3), InputError);
}

TEST(SubTokens, OneHeadIsThePlainLayer_C16) {
  MoeBlock one = coarse();
  one.sub_token_heads = 1;
  EXPECT_EQ(one, coarse());
  EXPECT_EQ(block_parameters(one, kHidden).total, block_parameters(coarse(), kHidden).total);
}

TEST(SubTokens, HeadsSplitATokenIntoAsManyNarrowOnes_C16) {
  MoeBlock heads = coarse();
  heads.sub_token_heads = 4;
  // Router and experts work on 512 / 4 = 128 columns: 128 * 16 and 16 * 3 * 128 * 256, beside two projections of the
  // whole token.
  const ParameterCount count = block_parameters(heads, kHidden);
  EXPECT_EQ(count.routed_experts, 16.0 * 3 * 128 * 256);
  EXPECT_EQ(count.total - count.routed_experts, 128.0 * 16 + 2.0 * kHidden * kHidden);
}

TEST(BlockParameters, TheOrderOfTypedExpertsDoesNotMatter_A16_A6) {
  MoeBlock mixed = coarse();
  ExpertSpec deep = mixed.experts[0].expert;
  deep.width = 128;
  deep.depth = 2;
  ExpertSpec identity;
  identity.kind = ExpertKind::identity;
  mixed.experts = {{3, mixed.experts[0].expert, ""}, {2, deep, ""}, {1, identity, ""}};
  MoeBlock turned = mixed;
  std::swap(turned.experts[0], turned.experts[2]);
  EXPECT_EQ(block_parameters(mixed, kHidden).total, block_parameters(turned, kHidden).total);
  // 3 experts of 3 * 512 * 256, 2 of two hops of 3 * 512 * 128, nothing for the identity.
  EXPECT_EQ(block_parameters(mixed, kHidden).routed_experts, 3.0 * 393216 + 2.0 * 393216);
}

}  // namespace
}  // namespace moecast
