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
