#include "models/plan/memory.h"

#include <gtest/gtest.h>

#include "models/core/error.h"

namespace moecast {
namespace {

Architecture mixtral() {
  Architecture a;
  a.hidden = 4096;
  a.vocabulary = 32000;
  AttentionBlock attention;
  attention.heads = 32;
  attention.kv_heads = 8;
  attention.head_dim = 128;
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = 14336;
  moe.experts = {{8, expert, ""}};
  moe.router.top_k = 2;
  a.decoder.assign(32, {{attention, moe}});
  return a;
}

TEST(MemoryPerRank, MixtralInBf16DoesNotFitEightyGigabytes_C11) {
  Workload w;
  w.batch = 1;
  w.context = 4095;
  const MemoryBreakdown memory = memory_per_rank(mixtral(), {}, w);
  EXPECT_NEAR(memory.weights.value() / 1e9, 93.4, 0.05);
  EXPECT_GT(memory.total().value(), 80e9);
  EXPECT_LT(memory.total().value(), 141e9);  // an H200 holds it
  Deployment four_bit;
  four_bit.dtype = DType::int4;
  EXPECT_LT(memory_per_rank(mixtral(), four_bit, w).weights.value(), 32e9);
}

TEST(MemoryPerRank, CacheIsInTheFormatOfActivationsUnlessSaid) {
  Workload w;
  w.batch = 16;
  w.context = 4095;
  const auto cache = [&](std::optional<DType> weights, std::optional<DType> kv) {
    Deployment d;
    d.dtype = weights;
    d.kv_dtype = kv;
    return memory_per_rank(mixtral(), d, w).kv_cache.value();
  };
  // 2 bytes x (8 keys + 8 values) x 128 x 32 layers x 16 sequences x 4096 tokens.
  const double bf16 = 2.0 * 16 * 128 * 32 * 16 * 4096;
  EXPECT_DOUBLE_EQ(cache(std::nullopt, std::nullopt), bf16);
  for (const DType weights : {DType::fp8, DType::fp8_block, DType::int4, DType::nvfp4}) {
    EXPECT_DOUBLE_EQ(cache(weights, std::nullopt), bf16) << to_string(weights);
  }
  EXPECT_DOUBLE_EQ(cache(DType::fp32, std::nullopt), 2 * bf16);
  EXPECT_DOUBLE_EQ(cache(DType::fp8_block, DType::fp8), bf16 / 2);
  Architecture says = mixtral();
  says.kv_dtype = DType::fp8;
  EXPECT_DOUBLE_EQ(memory_per_rank(says, {}, w).kv_cache.value(), bf16 / 2);
}

TEST(MemoryPerRank, AKvHeadIsTheLeastThatARankHolds) {
  Architecture one = mixtral();
  one.decoder.resize(1);
  std::get<AttentionBlock>(one.decoder[0].blocks[0]).kv_heads = 4;
  std::erase_if(one.decoder[0].blocks, [](const Block& b) { return std::holds_alternative<MoeBlock>(b); });
  one.vocabulary = 0;
  const auto weights = [&](int tp) {
    Deployment d;
    d.tp = tp;
    return memory_per_rank(one, d, Workload{}).weights.value();
  };
  // Queries and output are split over 8 ranks, keys and values over 4.
  const double square = 4096.0 * 4096;
  const double heads = 2 * 4096.0 * 4 * 128;
  const double norm = 4096;
  EXPECT_DOUBLE_EQ(weights(4), 2 * ((2 * square + heads) / 4 + norm));
  EXPECT_DOUBLE_EQ(weights(8), 2 * (2 * square / 8 + heads / 4 + norm));
}

TEST(MemoryPerRank, CacheIsKeptInWholeBlocks) {
  Workload w;
  w.batch = 3;
  w.context = 16;  // with the new token 17: two blocks of 16
  // 3 sequences * 32 tokens * 2 * 8 heads * 128 * 2 bytes * 32 layers.
  EXPECT_DOUBLE_EQ(memory_per_rank(mixtral(), {}, w).kv_cache.value(), 3.0 * 32 * 2 * 8 * 128 * 2 * 32);
}

TEST(MemoryPerRank, ParallelismSplitsWhatItSplits) {
  Workload w;
  w.batch = 8;
  const double one = memory_per_rank(mixtral(), {}, w).weights.value();
  Deployment tp;
  tp.tp = 4;
  EXPECT_NEAR(memory_per_rank(mixtral(), tp, w).weights.value() / one, 0.25, 0.001);
  Deployment ep;
  ep.ep = 8;
  ep.dp = 8;
  const double shared = one - 2.0 * 32 * 1'409'286'144;
  EXPECT_NEAR(memory_per_rank(mixtral(), ep, w).weights.value(), shared + 2.0 * 32 * 1'409'286'144 / 8, 1e6);
  Deployment odd;
  odd.ep = 3;
  EXPECT_THROW(memory_per_rank(mixtral(), odd, w), InputError);
}

TEST(MemoryPerRank, ChunksLowerTheWorkspace_B12) {
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = 4096;
  const double whole = memory_per_rank(mixtral(), {}, w).workspace.value();
  w.chunks = 4;
  const double quarter = memory_per_rank(mixtral(), {}, w).workspace.value();
  w.chunks = 8;
  const double eighth = memory_per_rank(mixtral(), {}, w).workspace.value();
  // The rows inside experts shrink with 1/chunks: whole - quarter = 3/4 of them, quarter - eighth = 1/8.
  EXPECT_NEAR((whole - quarter) / (quarter - eighth), 6, 0.01);
}

}  // namespace
}  // namespace moecast
