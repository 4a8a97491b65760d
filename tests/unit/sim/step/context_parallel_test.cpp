#include "sim/step/context_parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/plan/memory.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

const Predictor& h200() {
  static const auto predictor = load_gpu_predictor(kRoot + "/hwprofiles/h200-sxm", kRoot + "/models/plan/engines");
  return *predictor;
}

Architecture model(const std::string& name) { return load_architecture(kRoot + "/models/zoo/" + name + ".json"); }

Deployment ranks(int tp, int cp, const std::string& backend = "vllm") {
  Deployment d;
  d.tp = tp;
  d.cp = cp;
  d.ep = tp * cp;
  d.backend = backend;
  return d;
}

Workload decode(std::int64_t batch, std::int64_t context) {
  Workload w;
  w.batch = batch;
  w.context = context - 1;
  w.load.kind = LoadKind::log_normal;
  w.load.parameter = 1;
  return w;
}

Workload prefill(std::int64_t prompt) {
  Workload w = decode(1, 1);
  w.phase = Phase::prefill;
  w.prompt = prompt;
  return w;
}

double part(const Prediction& p, const std::string& name) {
  double sum = 0;
  for (const OperatorCost& cost : p.operators) sum += cost.name == name ? cost.latency.value() : 0;
  return sum;
}

/// Twice the pairs of query and key of a rank.
double pairs(const StepShape& s) { return s.context * s.context / s.prompts + 2 * s.context * s.prefix / s.prompts; }

TEST(ContextParallel, RanksShareTokensCacheAndPairsEvenly) {
  StepShape all;
  all.prompts = 2;
  all.context = 6000;
  all.prefix = 1000;
  all.decodes = 5;
  all.decode_kv = 4096;
  for (const int cp : {1, 2, 4, 8}) {
    const StepShape share = context_share(all, cp);
    EXPECT_DOUBLE_EQ(share.context * cp, all.context);
    EXPECT_DOUBLE_EQ(share.decode_kv * cp, all.decode_kv);
    EXPECT_DOUBLE_EQ(share.decodes, all.decodes);  // every rank generates for every sequence
    EXPECT_NEAR(pairs(share) * cp, pairs(all), 1e-6 * pairs(all));
  }
}

TEST(ContextParallel, CacheOfARankFallsByTheRanks) {
  const Architecture a = model("qwen3-30b-a3b");
  const Workload w = decode(8, 8192);
  const MemoryBreakdown one = memory_per_rank(a, ranks(1, 1), w);
  for (const int cp : {2, 4, 8}) {
    const MemoryBreakdown share = memory_per_rank(a, ranks(1, cp), w);
    EXPECT_DOUBLE_EQ(share.kv_cache.value() * cp, one.kv_cache.value());
    EXPECT_LT(share.weights, one.weights);  // experts lie on all ranks
  }
  EXPECT_DOUBLE_EQ(memory_per_rank(a, ranks(1, 4), prefill(8192)).activations.value() * 4,
                   memory_per_rank(a, ranks(1, 1), prefill(8192)).activations.value());
}

TEST(ContextParallel, OneRankIsNoContextParallelism) {
  const Architecture a = model("qwen3-30b-a3b");
  for (const Workload& w : {decode(16, 4096), prefill(4096)}) {
    const Prediction p = h200().predict(a, ranks(2, 1), w);
    for (const OperatorCost& cost : p.operators) EXPECT_THAT(cost.name, testing::Not(testing::HasSubstr("context.")));
  }
}

TEST(ContextParallel, LongContextsGainShortOnesPay) {
  const Architecture a = model("qwen3-30b-a3b");
  const auto seconds = [&](int cp, const Workload& w) { return h200().predict(a, ranks(1, cp), w).latency->value(); };
  // Attention over 128 k tokens a sequence outweighs what combining costs.
  const Workload deep = decode(8, 32768);
  const Prediction one = h200().predict(a, ranks(1, 1), deep);
  const Prediction four = h200().predict(a, ranks(1, 4), deep);
  const double attention = part(one, "attention.decode");
  EXPECT_LT(part(four, "attention.decode"), 0.5 * attention);
  EXPECT_GT(part(four, "attention.decode"), attention / 4 * 0.9);
  EXPECT_GT(part(four, "context.all_reduce"), 0);
  EXPECT_GT(part(four, "context.softmax_all_gather"), 0);
  EXPECT_GT(part(four, "experts.all_reduce"), 0);
  EXPECT_EQ(part(four, "context.all_gather"), 0);
  EXPECT_GT(seconds(4, decode(1, 64)), seconds(1, decode(1, 64)) * 0.8);
  // A prompt of 32 k: rows and pairs are a quarter.
  EXPECT_LT(seconds(4, prefill(32768)), 0.6 * seconds(1, prefill(32768)));
  EXPECT_GT(seconds(4, prefill(32768)), seconds(1, prefill(32768)) / 4);
}

TEST(ContextParallel, ARingHidesBehindAttentionOverLongPrompts) {
  const Architecture a = model("qwen3-30b-a3b");
  const auto exposed = [&](std::int64_t prompt) {
    return part(h200().predict(a, ranks(1, 4, "trtllm"), prefill(prompt)), "context.ring");
  };
  EXPECT_GT(exposed(512), 0);
  EXPECT_EQ(exposed(131072), 0);  // attention grows with the square, keys in proportion
}

TEST(ContextParallel, WhatCannotBeSharedIsRefusedByName) {
  const Prediction linear = h200().predict(model("qwen3.6-35b-a3b"), ranks(1, 2), decode(4, 1024));
  EXPECT_EQ(linear.status, Status::outside_range);
  EXPECT_THAT(linear.reason, testing::HasSubstr("context parallelism of recurrent"));
}

}  // namespace
}  // namespace moecast
