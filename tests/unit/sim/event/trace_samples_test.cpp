// Recorded routings and series of orders as the samples of expert-parallel layers.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/statistics.h"
#include "models/routing/trace_writer.h"
#include "sim/event/ep_study.h"

namespace moecast {
namespace {

const std::string kData = MOECAST_SOURCE_DIR "/hwprofiles/";

const GpuMachine& h200() {
  static const GpuMachine machine = read_gpu_machine(kData + "h200-sxm");
  return machine;
}

Cluster rails() { return read_cluster(kData + "clusters/h200-hgx-rail.json"); }

/// Equal MoE layers, nothing else.
Architecture layers(int count) {
  Architecture a;
  a.name = "layers";
  a.hidden = 4096;
  a.dtype = DType::fp8_block;
  MoeBlock block;
  ExpertSpec expert;
  expert.width = 1536;
  block.experts.push_back({64, expert, ""});
  block.router.top_k = 4;
  for (int i = 0; i < count; ++i) a.decoder.push_back({{block}});
  return a;
}

Deployment eight() {
  Deployment d;
  d.ep = 8;
  return d;
}

constexpr std::int64_t kTokens = 8 * 128;

Workload tokens() {
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = kTokens;
  return w;
}

EpOptions few(int samples) {
  EpOptions options;
  options.samples = samples;
  options.dispatch = DispatchMethod::normal;
  return options;
}

class RecordedRouting : public testing::Test {
 protected:
  ~RecordedRouting() override { std::filesystem::remove(path_); }

  Workload recorded(double exponent, int layers, std::int64_t steps) {
    TraceRecipe recipe;
    recipe.policy.top_k = 4;
    recipe.popularity = expert_popularity({LoadKind::zipf, exponent, {}, 1}, 64);
    recipe.tokens = kTokens;
    recipe.layers = layers;
    recipe.steps = steps;
    write_file_atomically(path_, routing_trace_text(recipe));
    Workload w = tokens();
    w.load.kind = LoadKind::trace;
    w.load.trace = std::make_shared<const RoutingTrace>(read_routing_trace(path_));
    return w;
  }
  const std::string path_ = testing::TempDir() + fmt::format("moecast_recorded_{}.csv.gz", getpid());
};

TEST_F(RecordedRouting, WindowsAreTheSamples) {
  const Prediction p = predict_ep(h200(), rails(), layers(2), eight(), recorded(0.8, 2, 6), few(200));
  EXPECT_EQ(p.distribution->samples, 6) << "as many as the trace holds";
  const Prediction three = predict_ep(h200(), rails(), layers(2), eight(), recorded(0.8, 2, 6), few(3));
  EXPECT_EQ(three.distribution->samples, 3) << "as many as are asked for";
  // The same law drawn afresh: a mean of few windows is within a few percent of it.
  Workload drawn = tokens();
  drawn.load = {LoadKind::zipf, 0.8, {}, 1};
  const Prediction sampled = predict_ep(h200(), rails(), layers(2), eight(), drawn, few(100));
  EXPECT_NEAR(*p.latency / *sampled.latency, 1, 0.06);
  EXPECT_NEAR(p.distribution->row_imbalance / sampled.distribution->row_imbalance, 1, 0.15);
}

TEST_F(RecordedRouting, SkewThatWasRecordedSlows) {
  const auto latency = [&](double exponent) {
    return predict_ep(h200(), rails(), layers(1), eight(), recorded(exponent, 1, 4), few(4)).latency->value();
  };
  EXPECT_GT(latency(1.2), 1.1 * latency(0));
}

TEST_F(RecordedRouting, LayersTakeTurnsWhereTheTraceHoldsFewer) {
  const Workload two = recorded(0.8, 2, 3);
  const Prediction p = predict_ep(h200(), rails(), layers(4), eight(), two, few(3));
  const Prediction half = predict_ep(h200(), rails(), layers(2), eight(), two, few(3));
  EXPECT_EQ(p.distribution->samples, 3);
  // Layers have the same placement only by chance: equal kinds are placed in orders of their own.
  EXPECT_NEAR(*p.latency / *half.latency, 2, 0.15);
  EXPECT_NE(std::ranges::find_if(p.warnings, [](const std::string& w) { return w.find("take turns") != w.npos; }),
            p.warnings.end());
}

TEST_F(RecordedRouting, SaysWhatATraceCannot) {
  const Workload recorded_two = recorded(0.8, 1, 2);
  Workload longer = recorded_two;
  longer.prompt = 3 * kTokens;
  EXPECT_THROW(predict_ep(h200(), rails(), layers(1), eight(), longer, few(2)), InputError) << "no whole window";
  EpOptions options = few(2);
  options.batches = 2;
  EXPECT_THROW(predict_ep(h200(), rails(), layers(1), eight(), recorded_two, options), InputError);
  options = few(2);
  options.orders.drift = 0.1;
  EXPECT_THROW(predict_ep(h200(), rails(), layers(1), eight(), recorded_two, options), InputError);
}

Prediction with_orders(OrderSeries orders, PlacementKind placement, int samples = 24, int threads = 1) {
  Workload w = tokens();
  w.load = {LoadKind::zipf, 1.0, {}, 1};
  EpOptions options = few(samples);
  options.orders = orders;
  options.placement = placement;
  options.threads = threads;
  return predict_ep(h200(), rails(), layers(8), eight(), w, options);
}

TEST(OrdersOfExperts, TheSameForASeedOnAnyNumberOfThreads_D3) {
  const Prediction one = with_orders({0.5, 0.2}, PlacementKind::contiguous);
  const Prediction four = with_orders({0.5, 0.2}, PlacementKind::contiguous, 24, 4);
  EXPECT_EQ(one.latency->value(), four.latency->value());
  EXPECT_EQ(one.distribution->p99.value(), four.distribution->p99.value());
}

TEST(OrdersOfExperts, DriftOutrunsABalancedPlacement_D3) {
  const auto imbalance = [](double drift) {
    return with_orders({0, drift}, PlacementKind::balanced).distribution->row_imbalance;
  };
  const double still = with_orders({0.5, 0}, PlacementKind::balanced).distribution->row_imbalance;
  EXPECT_LT(still, 1.3) << "placed for the load that comes";
  EXPECT_GT(imbalance(0.3), 1.2 * still);
}

TEST(OrdersOfExperts, LayersAlikeSpreadTheSteps_D3) {
  // Where all layers have one order, a bad order is bad eight times: steps differ more once orders change.
  const auto spread = [](double correlation) {
    const Prediction p = with_orders({correlation, 1}, PlacementKind::contiguous, 64);
    return p.distribution->p90 / p.distribution->p50 - 1;
  };
  EXPECT_GT(spread(1), 1.3 * spread(0));
}

TEST(ExchangeOfLayers, EachAlgorithmIsPredictedAndOnlyOfNccl) {
  const auto latency = [](ExchangeAlgorithm exchange, int ep) {
    EpOptions options;
    options.samples = 8;
    options.exchange = exchange;
    Deployment d;
    d.ep = ep;
    options.dispatch = DispatchMethod::nccl;
    return predict_ep(h200(), rails(), layers(1), d, tokens(), options).latency->value();
  };
  const double direct = latency(ExchangeAlgorithm::direct, 16);
  EXPECT_GT(latency(ExchangeAlgorithm::ring, 16), latency(ExchangeAlgorithm::pairwise, 16));
  EXPECT_GT(latency(ExchangeAlgorithm::pairwise, 16), direct);
  EXPECT_GT(latency(ExchangeAlgorithm::all_gather, 16), direct) << "every token to every rank";
  EXPECT_NE(latency(ExchangeAlgorithm::hierarchical, 16), direct);
  EpOptions options = few(2);
  options.exchange = ExchangeAlgorithm::ring;
  EXPECT_THROW(predict_ep(h200(), rails(), layers(1), eight(), tokens(), options), InputError)
      << "DeepEP's kernels send as they do";
}

}  // namespace
}  // namespace moecast
