#include "sim/analytic/analytic.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/core/error.h"

namespace moecast {
namespace {

/// 1 us a call, 2 m n k at 100 GFLOP/s (half of it called memory), stages 1 ns a row; 10 % intervals.
class PlainModel final : public CostModel {
 public:
  [[nodiscard]] KernelCost cost(const KernelPoint& point, double rows) const override {
    const double m = rows > 0 ? rows : static_cast<double>(point.shape.m);
    double t = 1e-9 * std::max(m, static_cast<double>(point.shape.tokens));
    if (point.kind == OperatorKind::gemm) {
      t = 1e-6 + 2 * m * static_cast<double>(point.shape.n) * static_cast<double>(point.shape.k) / 100e9;
    }
    KernelCost cost{Seconds(t), Seconds(t / 1.1), Seconds(t * 1.1), 0.5, 0.4, Origin::interpolated};
    return cost;
  }
  [[nodiscard]] double uncertainty(const KernelPoint&) const override { return 0.1; }
  [[nodiscard]] bool knows(OperatorKind, const std::string&, DType, int) const override { return true; }
};

Architecture layer(std::int64_t experts, int top_k, RouterNetwork network = RouterNetwork::linear) {
  Architecture a;
  a.name = "layer";
  a.hidden = 256;
  a.dtype = DType::fp32;
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = 512;
  moe.experts = {{experts, expert, ""}};
  moe.router.top_k = top_k;
  moe.router.network = network;
  if (network == RouterNetwork::mlp) moe.router.mlp_widths = {128};
  a.decoder = {{{moe}}};
  return a;
}

Prediction run(const Architecture& a, const Workload& w, const Without& without = {}, const LayerTerms& terms = {}) {
  const Deployment d;
  return evaluate(build_graph(a, d, w), d, w, PlainModel(), terms, without);
}

Workload tokens(std::int64_t count) {
  Workload w;
  w.batch = count;
  return w;
}

TEST(Evaluate, StagesSumToTheLayer_A1) {
  const Prediction p = run(layer(8, 2), tokens(64));
  Seconds sum;
  for (const OperatorCost& op : p.operators) sum += op.latency;
  EXPECT_NEAR(sum / *p.latency, 1, 1e-12);
  EXPECT_LE(p.factors.memory_bandwidth + p.factors.compute + p.factors.routing_overhead + p.factors.all_to_all,
            *p.latency * 1.000001);
  EXPECT_NEAR(*p.throughput_tokens_per_s, 64 / p.latency->value(), 1e-6);
}

TEST(Evaluate, ARaggedHistogramCostsTheSumOverItsExperts_A16) {
  Workload w = tokens(4);
  w.rows_per_expert = {3, 3, 2, 0};
  const Prediction p = run(layer(4, 2), w);
  // Three experts: 3 calls of two GEMMs = 6 us, and 8 rows * 3 * 256 * 512 * 2 / 100 GF = 62.9 us.
  double gemms = 0;
  double fullest = 0;
  for (const OperatorCost& op : p.operators) {
    if (op.kind == "grouped_gemm") gemms += op.latency.value();
  }
  fullest = 2e-6 + 3 * 3.0 * 256 * 512 * 2 / 100e9;
  EXPECT_NEAR(gemms, 6e-6 + 8 * 3.0 * 256 * 512 * 2 / 100e9, 1e-9);
  EXPECT_GE(gemms, fullest);
}

TEST(Evaluate, AnMlpRouterNeverCostsLess_A7) {
  EXPECT_GT(*run(layer(8, 2, RouterNetwork::mlp), tokens(64)).latency, *run(layer(8, 2), tokens(64)).latency);
}

TEST(Evaluate, TheOrderOfUnlikeExpertsLeavesTheTotal_A16) {
  Architecture mixed = layer(1, 1);
  auto& moe = std::get<MoeBlock>(mixed.decoder[0].blocks[0]);
  ExpertSpec small = moe.experts[0].expert;
  small.width = 128;
  moe.experts = {{1, moe.experts[0].expert, ""}, {1, small, ""}, {1, moe.experts[0].expert, ""}, {1, small, ""}};
  moe.router.top_k = 2;
  Workload w = tokens(8);
  w.rows_per_expert = {7, 1, 5, 3};
  Architecture turned = mixed;
  auto& experts = std::get<MoeBlock>(turned.decoder[0].blocks[0]).experts;
  std::swap(experts[0], experts[3]);
  Workload moved = w;
  std::swap(moved.rows_per_expert[0], moved.rows_per_expert[3]);
  EXPECT_NEAR(*run(turned, moved).latency / *run(mixed, w).latency, 1, 1e-12);
  // Only the rows of the small one and the large one change places: another layer, another time.
  EXPECT_GT(std::abs(*run(mixed, moved).latency / *run(mixed, w).latency - 1), 1e-3);
}

TEST(Evaluate, MoreChunksNeverRunFaster_B12) {
  Workload w = tokens(64);
  Seconds last = *run(layer(8, 2), w).latency;
  w.chunks = 1;
  EXPECT_EQ(*run(layer(8, 2), w).latency, last);
  for (const std::int64_t chunks : {2, 4, 8}) {
    w.chunks = chunks;
    const Seconds now = *run(layer(8, 2), w).latency;
    EXPECT_GT(now, last) << chunks;
    last = now;
  }
}

TEST(Evaluate, RemovingAFactorNeverSlows) {
  Workload w = tokens(16);
  w.load.kind = LoadKind::zipf;
  w.load.parameter = 1.2;
  const Seconds whole = *run(layer(16, 2), w).latency;
  EXPECT_LT(*run(layer(16, 2), w, {.routing_overhead = true}).latency, whole);
  EXPECT_LT(*run(layer(16, 2), w, {.memory_bandwidth = true}).latency, whole);
  EXPECT_LE(*run(layer(16, 2), w, {.all_to_all = true}).latency, whole);
  EXPECT_LE(*run(layer(16, 2), w, {.expert_imbalance = true}).latency, whole * 1.0000001);
}

TEST(Evaluate, IntervalDoesNotShrinkWithTheNumberOfLayers) {
  Architecture one = layer(8, 2);
  one.decoder.assign(2, layer(8, 2).decoder[0]);
  Architecture many = one;
  many.decoder.assign(96, one.decoder[0]);
  const Prediction a = run(one, tokens(64));
  const Prediction b = run(many, tokens(64));
  EXPECT_NEAR(*b.latency / *a.latency, 48, 1e-9);
  EXPECT_NEAR(std::log(*b.high / *b.latency), std::log(*a.high / *a.latency), 1e-9);
}

TEST(Evaluate, ExecutedLayersScaleLatencyAndInterval) {
  const Prediction plain = run(layer(8, 2), tokens(64));
  const Prediction closed = run(layer(8, 2), tokens(64), {}, {1.05, 0.6});
  EXPECT_NEAR(*closed.latency / *plain.latency, 1.05, 1e-12);
  EXPECT_NEAR(std::log(*closed.high / *closed.latency), 0.6 * std::log(*plain.high / *plain.latency), 1e-12);
}

}  // namespace
}  // namespace moecast
