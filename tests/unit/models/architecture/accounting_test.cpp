#include "models/architecture/accounting.h"

#include <gtest/gtest.h>

namespace moecast {
namespace {

ExpertSpec ffn(std::int64_t width, bool gated = true, int depth = 1) {
  ExpertSpec spec;
  spec.width = width;
  spec.gated = gated;
  spec.depth = depth;
  return spec;
}

MoeBlock moe_of(std::int64_t experts, int top_k, const ExpertSpec& spec) {
  MoeBlock moe;
  moe.experts = {{experts, spec, ""}};
  moe.router.top_k = top_k;
  return moe;
}

Architecture mixtral() {
  Architecture a;
  a.name = "mixtral-8x7b";
  a.hidden = 4096;
  a.vocabulary = 32000;
  AttentionBlock attention;
  attention.heads = 32;
  attention.kv_heads = 8;
  attention.head_dim = 128;
  Layer layer{{attention, moe_of(8, 2, ffn(14336))}};
  a.decoder.assign(32, layer);
  return a;
}

TEST(CountParameters, MixtralIsFortySixPointSevenBillion_C11) {
  // A layer: attention 4096 (4096 + 2048 + 4096) = 41,943,040; experts 8 * 3 * 4096 * 14336 = 1,409,286,144; router
  // 32,768; norms 8,192. Times 32, plus 2 * 32000 * 4096 and the final norm: 46,702,792,704.
  const ParameterCount count = count_parameters(mixtral());
  EXPECT_DOUBLE_EQ(count.total, 46'702'792'704.0);
  EXPECT_NEAR(count.active / 1e9, 12.88, 0.01);
  EXPECT_NEAR(count.total * 2 / 1e9, 93.4, 0.05);  // GB in bf16
}

TEST(ExpertParameters, FollowTheMatrices_B2) {
  EXPECT_DOUBLE_EQ(expert_parameters(ffn(10, true), 4), 3 * 4 * 10);
  EXPECT_DOUBLE_EQ(expert_parameters(ffn(10, false), 4), 2 * 4 * 10);
  ExpertSpec biased = ffn(10, false);
  biased.bias = true;
  EXPECT_DOUBLE_EQ(expert_parameters(biased, 4), 2 * 4 * 10 + 10 + 4);
}

TEST(ExpertParameters, TypedExpertsMatchTheirHandFormulas_A6_C2) {
  // {ffn, 1024, 1 layer} and {ffn, 512, 2 layers}: equal weights and FLOPs, the second has one more hop.
  EXPECT_DOUBLE_EQ(expert_parameters(ffn(1024, false), 512), expert_parameters(ffn(512, false, 2), 512));
  EXPECT_EQ(expert_flops(ffn(1024, false), 512, 7).value(), 7 * 2.0 * 2 * 512 * 1024);
  ExpertSpec transformer = ffn(1024, false);
  transformer.kind = ExpertKind::transformer;
  transformer.heads = 8;
  transformer.head_dim = 64;
  EXPECT_DOUBLE_EQ(expert_parameters(transformer, 512), 4.0 * 512 * 512 + 2.0 * 512 * 1024);
  ExpertSpec convolution;
  convolution.kind = ExpertKind::convolution;
  convolution.width = 64;
  convolution.kernel_size = 9;
  EXPECT_DOUBLE_EQ(expert_parameters(convolution, 32), 2.0 * 32 * 64 * 9);
  ExpertSpec recurrent;
  recurrent.kind = ExpertKind::recurrent;
  recurrent.width = 20;
  EXPECT_DOUBLE_EQ(expert_parameters(recurrent, 10), 4.0 * (200 + 400 + 20) + 200);
  ExpertSpec identity;
  identity.kind = ExpertKind::identity;
  EXPECT_EQ(expert_parameters(identity, 10), 0);
}

TEST(BlockParameters, AllExpertsActiveEqualsTheWideDenseNetwork_A3) {
  // K = N: N experts of width w cost what one dense network of width N w costs, apart from the router.
  const auto all = block_parameters(moe_of(8, 8, ffn(256)), 512);
  const auto dense = block_parameters(DenseFfnBlock{ffn(8 * 256)}, 512);
  EXPECT_DOUBLE_EQ(all.active - 8 * 512, dense.total);
  EXPECT_DOUBLE_EQ(all.total, all.active);
}

TEST(BlockParameters, ActiveShareOfExpertsIsKOverN_B9) {
  const auto sparse = block_parameters(moe_of(16, 2, ffn(256)), 512);
  const auto dense = block_parameters(moe_of(16, 16, ffn(256)), 512);
  const double router = 16 * 512;
  EXPECT_DOUBLE_EQ((sparse.active - router) / (dense.active - router), 2.0 / 16);
}

TEST(BlockParameters, AListOfEqualExpertsIsTheHomogeneousLayer_A16) {
  MoeBlock listed = moe_of(8, 2, ffn(256));
  listed.experts.assign(8, {1, ffn(256), ""});
  EXPECT_EQ(block_parameters(listed, 512).total, block_parameters(moe_of(8, 2, ffn(256)), 512).total);
  MoeBlock mixed = listed;
  mixed.experts[0].expert.width = 128;
  MoeBlock permuted = mixed;
  std::swap(permuted.experts[0], permuted.experts[5]);
  EXPECT_EQ(block_parameters(mixed, 512).total, block_parameters(permuted, 512).total);
}

TEST(BlockParameters, AnyKUpToTheNumberOfExperts_C5) {
  double last = 0;
  for (const int k : {1, 2, 8, 22, 64}) {
    const double active = block_parameters(moe_of(64, k, ffn(128)), 256).active;
    EXPECT_GT(active, last);
    last = active;
  }
}

TEST(RouterParameters, AnMlpRouterCostsMoreThanALinearOne_A7) {
  RouterSpec linear;
  RouterSpec mlp;
  mlp.network = RouterNetwork::mlp;
  mlp.mlp_widths = {128};
  EXPECT_DOUBLE_EQ(router_parameters(linear, 16, 512), 16.0 * 512);
  EXPECT_DOUBLE_EQ(router_parameters(mlp, 64, 512), 512.0 * 128 + 128 * 64);
  EXPECT_GT(router_flops(mlp, 16, 512, 5).value(), router_flops(linear, 16, 512, 5).value());
}

TEST(AttentionFlops, PrefillAndDecodeCountTheirKeys) {
  AttentionBlock block;
  block.heads = 4;
  block.kv_heads = 2;
  block.head_dim = 8;
  Architecture a;
  a.hidden = 32;
  a.decoder = {{{block}}};
  const double projections = 2.0 * (32 * (32 + 32) + 32 * 32);
  // Prefill of 3: 1 + 2 + 3 keys; 4 heads * 4 * 8 operations a key.
  EXPECT_DOUBLE_EQ(step_flops(a, 1, 3, 0).value(), 3 * projections + 6 * 4 * 32);
  // Decode of one token in two sequences after 9: 10 keys each.
  EXPECT_DOUBLE_EQ(step_flops(a, 2, 1, 9).value(), 2 * projections + 2 * 10 * 4 * 32);
  std::get<AttentionBlock>(a.decoder[0].blocks[0]).window = 4;
  EXPECT_DOUBLE_EQ(step_flops(a, 2, 1, 9).value(), 2 * projections + 2 * 4 * 4 * 32);
}

TEST(AttentionFlops, CrossAttentionProjectsKeysFromTheEncodersWidth) {
  AttentionBlock cross;
  cross.kind = AttentionKind::cross;
  cross.heads = cross.kv_heads = 4;
  cross.head_dim = 8;
  cross.causal = false;
  Architecture a;
  a.hidden = 32;
  a.encoder_hidden = 100;
  a.decoder = {{{cross}}};
  // Two sequences of 3 tokens that see 3 encoded ones: query and output 32 x 32 each, keys and values 100 x 64.
  const double projections = 2.0 * 6 * (2 * 32 * 32 + 100 * 64);
  EXPECT_DOUBLE_EQ(step_flops(a, 2, 3, 0).value(), projections + 6 * 3 * 4 * 4 * 8);
  // A wider encoder costs its own width more, the decoder's stays.
  Architecture wider = a;
  wider.encoder_hidden = 200;
  EXPECT_DOUBLE_EQ(step_flops(wider, 2, 3, 0).value() - step_flops(a, 2, 3, 0).value(), 2.0 * 6 * 100 * 64);
}

TEST(KvBytes, OfEveryKindOfAttention) {
  AttentionBlock grouped;
  grouped.heads = 32;
  grouped.kv_heads = 8;
  grouped.head_dim = 128;
  EXPECT_DOUBLE_EQ(kv_bytes_per_token(grouped, DType::bf16).value(), 2 * 8 * 128 * 2);
  AttentionBlock latent;
  latent.kind = AttentionKind::latent;
  latent.latent = LatentSpec{1536, 512, 128, 64, 128};
  EXPECT_DOUBLE_EQ(kv_bytes_per_token(latent, DType::bf16).value(), 1152);  // (512 + 64) * 2
  AttentionBlock delta;
  delta.kind = AttentionKind::gated_delta_net;
  delta.linear = LinearAttentionSpec{16, 32, 128, 128, 4};
  EXPECT_EQ(kv_bytes_per_token(delta, DType::bf16).value(), 0);
  EXPECT_DOUBLE_EQ(state_bytes_per_sequence(delta, DType::bf16).value(),
                   4.0 * 32 * 128 * 128 + 2.0 * 3 * (4096 + 4096));
  grouped.window = 100;
  EXPECT_EQ(kept_tokens(grouped, 4096), 100);
}

}  // namespace
}  // namespace moecast
