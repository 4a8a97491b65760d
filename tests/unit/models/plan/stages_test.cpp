#include "models/plan/stages.h"

#include <gtest/gtest.h>

#include "models/core/error.h"
#include "models/plan/memory.h"

namespace moecast {
namespace {

std::vector<std::size_t> counts(std::size_t layers, int pp, ExtraLayers extra) {
  std::vector<std::size_t> found;
  std::size_t next = 0;
  for (const StageLayers& stage : stage_layers(layers, pp, extra)) {
    EXPECT_EQ(stage.first, next);  // no gap, no overlap
    next += stage.count;
    found.push_back(stage.count);
  }
  EXPECT_EQ(next, layers);
  return found;
}

TEST(PipelineStages, LeftOverLayersGoWhereTheEnginePutsThem) {
  using Counts = std::vector<std::size_t>;
  EXPECT_EQ(counts(61, 4, ExtraLayers::before_last), (Counts{15, 15, 16, 15}));
  EXPECT_EQ(counts(62, 4, ExtraLayers::before_last), (Counts{15, 16, 16, 15}));
  EXPECT_EQ(counts(63, 4, ExtraLayers::before_last), (Counts{16, 16, 16, 15}));
  EXPECT_EQ(counts(62, 4, ExtraLayers::first), (Counts{16, 16, 15, 15}));
  EXPECT_EQ(counts(4, 4, ExtraLayers::first), (Counts{1, 1, 1, 1}));
  EXPECT_EQ(counts(61, 1, ExtraLayers::before_last), (Counts{61}));
  EXPECT_THROW(stage_layers(3, 4, ExtraLayers::first), InputError);
}

Architecture dense(std::size_t layers) {
  Architecture a;
  a.name = "made up";
  a.hidden = 1000;
  a.vocabulary = 50'000;
  AttentionBlock attention;
  attention.heads = attention.kv_heads = 8;
  attention.head_dim = 128;
  ExpertSpec ffn;
  ffn.width = 4000;
  a.decoder.assign(layers, {{attention, DenseFfnBlock{ffn}}});
  return a;
}

TEST(PipelineStages, OnlyTheLastOneHasTheHead) {
  const Architecture whole = dense(5);
  const auto split = stage_layers(5, 2, ExtraLayers::first);
  EXPECT_EQ(stage_architecture(whole, split[0]).decoder.size(), 3U);
  EXPECT_EQ(stage_architecture(whole, split[0]).vocabulary, 0);
  EXPECT_EQ(stage_architecture(whole, split[1]).vocabulary, 50'000);
}

TEST(PipelineStages, ARankHoldsTheLayersOfItsStageAndTheFullestCounts) {
  Workload w;
  w.batch = 4;
  w.context = 1023;
  Deployment pp;
  pp.pp = 2;
  // Embedding and head are equal, so that both stages of 4 layers hold exactly half.
  const MemoryBreakdown whole = memory_per_rank(dense(4), {}, w);
  const MemoryBreakdown half = memory_per_rank(dense(4), pp, w);
  EXPECT_DOUBLE_EQ(half.weights.value(), whole.weights.value() / 2);
  EXPECT_DOUBLE_EQ(half.kv_cache.value(), whole.kv_cache.value() / 2);
  // Two micro-batches: half of the rows at once.
  EXPECT_DOUBLE_EQ(half.activations.value(), whole.activations.value() / 2);
  // Five layers: three on one stage, whichever it is.
  pp.extra_layers = ExtraLayers::first;
  const double cache = memory_per_rank(dense(5), {}, w).kv_cache.value();
  EXPECT_DOUBLE_EQ(memory_per_rank(dense(5), pp, w).kv_cache.value(), cache * 3 / 5);
  // Tied: the table lies on both ends, once each.
  Architecture tied = dense(4);
  tied.tied_embeddings = true;
  const double table = 2.0 * 50'000 * 1000;
  EXPECT_DOUBLE_EQ(memory_per_rank(tied, pp, w).weights.value(), half.weights.value());
  EXPECT_NEAR(memory_per_rank(tied, {}, w).weights.value(), whole.weights.value() - table, 1);
}

TEST(PipelineStages, AStageWithoutLayersIsRefusedBeforeItsMemoryIsCounted) {
  Deployment pp;
  pp.pp = 5;
  EXPECT_THROW(memory_per_rank(dense(4), pp, {}), InputError);
}

}  // namespace
}  // namespace moecast
