#include "models/plan/cache_room.h"

#include <gtest/gtest.h>

namespace moecast {
namespace {

/// Two layers of two KV heads of 64: 1,024 bytes a token in bf16.
Architecture small() {
  Architecture a;
  a.hidden = 512;
  a.vocabulary = 1000;
  AttentionBlock attention;
  attention.heads = 8;
  attention.kv_heads = 2;
  attention.head_dim = 64;
  DenseFfnBlock ffn;
  ffn.ffn.width = 1024;
  a.decoder.assign(2, {{attention, ffn}});
  return a;
}

TEST(CacheRoom, ATokenTakesKeysAndValuesOfEveryLayer) {
  Deployment d;
  EXPECT_NEAR(cache_size(small(), d, 4096).token, 2 * 2 * 2 * 64 * 2, 1e-9);
  EXPECT_NEAR(cache_size(small(), d, 4096).state, 0, 1e-9);
  d.kv_dtype = DType::fp8;
  EXPECT_NEAR(cache_size(small(), d, 4096).token, 2 * 2 * 2 * 64, 1e-9);
}

TEST(CacheRoom, IsAShareOfAllMemoryOrOfWhatIsFree) {
  MemoryBreakdown beside;
  beside.weights = Bytes(60e9);
  EngineSpec engine;
  EXPECT_NEAR(cache_room(engine, 100e9, 0.9, beside), 30e9, 1);
  engine.caches_free_memory = true;
  EXPECT_NEAR(cache_room(engine, 100e9, 0.9, beside), 36e9, 1);
}

TEST(CacheRoom, HoldsWholeBlocksOfWholeSequences) {
  Deployment d;
  const double token = cache_size(small(), d, 4096).token;
  EXPECT_EQ(sequences_in_cache(small(), d, 10 * 1008 * token, 1000), 10) << "63 blocks of 16 tokens each";
  EXPECT_EQ(sequences_in_cache(small(), d, 10 * 1008 * token - 1, 1000), 9);
  EXPECT_EQ(sequences_in_cache(small(), d, -1e9, 1000), 0);
  d.dp = 4;
  EXPECT_EQ(sequences_in_cache(small(), d, 10 * 1008 * token, 1000), 40) << "replicas have a cache each";
}

TEST(CacheRoom, NothingOfItIsBesideIt) {
  const MemoryBreakdown beside = memory_beside_cache(small(), {}, 8192);
  EXPECT_EQ(beside.kv_cache.value(), 0);
  EXPECT_GT(beside.weights.value(), 0);
  EXPECT_GT(beside.activations.value(), 0);
}

}  // namespace
}  // namespace moecast
