// Recorded routings and series of orders as the samples of expert-parallel layers.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
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

/// A trace of one window whose token t of a layer chooses what `experts` says.
class WrittenRouting : public testing::Test {
 protected:
  ~WrittenRouting() override { std::filesystem::remove(path_); }

  template <typename Experts>
  Workload written(int layer_count, const Experts& experts) {
    std::string text = "layer,token,expert_0,expert_1,expert_2,expert_3\n";
    for (int layer = 0; layer < layer_count; ++layer) {
      for (int t = 0; t < kTokens; ++t) {
        text += fmt::format("{},{}", layer, t);
        for (int slot = 0; slot < 4; ++slot) text += fmt::format(",{}", experts(layer, t, slot));
        text += '\n';
      }
    }
    write_file_atomically(path_, text);
    Workload w = tokens();
    w.load.kind = LoadKind::trace;
    w.load.trace = std::make_shared<const RoutingTrace>(read_routing_trace(path_));
    return w;
  }
  /// Every token chooses `hot` and three of the others.
  static int one_hot(int hot, int t, int slot) {
    if (slot == 0) return hot;
    const int other = (t * 3 + slot) % 63;
    return other < hot ? other : other + 1;
  }
  const std::string path_ = testing::TempDir() + fmt::format("moecast_written_{}.csv.gz", getpid());
};

TEST_F(WrittenRouting, TokensThatStayOnTheirRankAreEvenAndSendNothing) {
  const Workload own = written(2, [](int, int t, int slot) { return t / 128 * 8 + (t + slot) % 8; });
  const Prediction p = predict_ep(h200(), rails(), layers(2), eight(), own, few(1));
  EXPECT_NEAR(p.distribution->row_imbalance, 1, 1e-9);
  EXPECT_EQ(p.distribution->port_imbalance, 0);
  const Prediction uniform = predict_ep(h200(), rails(), layers(2), eight(), tokens(), few(4));
  EXPECT_LT(*p.latency, *uniform.latency);
}

TEST_F(WrittenRouting, ExpertsLieWhereTheirNumbersSay) {
  const Workload first_eight = written(1, [](int, int t, int slot) { return (t + slot) % 8; });
  EpOptions options = few(1);
  const auto imbalance = [&] {
    return predict_ep(h200(), rails(), layers(1), eight(), first_eight, options).distribution->row_imbalance;
  };
  EXPECT_NEAR(imbalance(), 8, 1e-9) << "all on rank 0 of 8";
  options.placement = PlacementKind::round_robin;
  EXPECT_NEAR(imbalance(), 1, 1e-9) << "one on each rank";
  options.placement = PlacementKind::map;
  for (int e = 0; e < 64; ++e) options.placement.map.push_back({e < 8 ? e / 4 : e % 8});
  EXPECT_NEAR(imbalance(), 4, 1e-9) << "four on each of two ranks";
  options.placement.map.pop_back();
  EXPECT_THROW(imbalance(), InputError);
}

TEST_F(WrittenRouting, TheBalancerSeesEachLayersOwnLoad) {
  EpOptions options = few(1);
  options.placement = PlacementKind::balanced;
  const auto answer = [&](int first, int second) {
    const Workload w =
        written(2, [&](int layer, int t, int slot) { return one_hot(layer == 0 ? first : second, t, slot); });
    return predict_ep(h200(), rails(), layers(2), eight(), w, options);
  };
  // A quarter of the rows is one expert's: copies of it bring the fullest rank near the mean.
  const Prediction apart = answer(3, 44);
  EXPECT_LT(apart.distribution->row_imbalance, 1.1);
  for (const int hot : {0, 7, 63}) {
    EXPECT_NEAR(answer(hot, hot).latency->value() / apart.latency->value(), 1, 0.02) << hot;
  }
}

TEST(RecordedHistogram, LiesAsItsNumbersSay) {
  Workload w = tokens();
  w.load.kind = LoadKind::histogram;
  const auto imbalance = [&](std::vector<int> hot, PlacementKind placement) {
    w.load.histogram.assign(64, 1e-9);
    for (const int e : hot) w.load.histogram[static_cast<std::size_t>(e)] = 1;
    EpOptions options = few(2);
    options.placement = placement;
    return predict_ep(h200(), rails(), layers(3), eight(), w, options).distribution->row_imbalance;
  };
  EXPECT_NEAR(imbalance({0, 1, 2, 3}, PlacementKind::contiguous), 8, 1e-3);
  EXPECT_NEAR(imbalance({0, 8, 16, 24}, PlacementKind::contiguous), 2, 1e-3);
  EXPECT_NEAR(imbalance({0, 8, 16, 24}, PlacementKind::round_robin), 8, 1e-3);
  EXPECT_NEAR(imbalance({0, 1, 2, 3}, PlacementKind::round_robin), 2, 1e-3);
}

TEST(LayerPlacements, GroupsLieOnNodesWhereAsked) {
  PlacementSpec nodes = PlacementKind::node_aware;
  nodes.ranks_per_node = 2;
  const std::vector<double> popularity(16, 1.0 / 16);
  for (const Placement& placement : make_placements(nodes, popularity, 4, 4, 3, 0, 1)) {
    for (int group = 0; group < 4; ++group) {
      for (int e = 1; e < 4; ++e) {
        EXPECT_EQ(placement.ranks_of(group * 4 + e).front() / 2, placement.ranks_of(group * 4).front() / 2) << group;
      }
    }
  }
}

TEST_F(WrittenRouting, HasTheNoiseThatItHas) {
  const Workload w = written(1, [](int, int t, int slot) { return one_hot(3, t, slot); });
  EpOptions options = few(1);
  options.noise = RoutingNoise::gaussian;
  options.noise_strength = 0.5;
  EXPECT_THROW(predict_ep(h200(), rails(), layers(1), eight(), w, options), InputError);
}

/// What the engine makes of a router.
Prediction routed(const std::function<void(MoeBlock&)>& change) {
  Architecture a = layers(1);
  change(std::get<MoeBlock>(a.decoder.front().blocks.front()));
  Workload w = tokens();
  w.load = {LoadKind::zipf, 1.2, {}, 1};
  return predict_ep(h200(), rails(), a, eight(), w, few(12));
}

TEST(RoutersOfLayers, CoarseExpertsAreChosenAsManyAsTheModelSays) {
  const auto imbalance = [](int chosen) {
    return routed([&](MoeBlock& block) {
             block.router.coarse_experts = 8;
             block.router.coarse_top_k = chosen;
           })
        .distribution->row_imbalance;
  };
  // A coarse expert is a rank here: all four rows on one, or on four of the eight.
  EXPECT_GT(imbalance(1), 1.1 * imbalance(2));
  EXPECT_GT(imbalance(2), 1.1 * imbalance(4));
}

TEST(RoutersOfLayers, AQueueForLaterStepsIsRefusedAndTrainingNoiseNamed) {
  EXPECT_THROW(routed([](MoeBlock& block) {
                 block.capacity.eval_factor = 1;
                 block.capacity.overflow = Overflow::queue;
               }),
               InputError);
  const Prediction noisy = routed([](MoeBlock& block) {
    block.router.noise = NoiseKind::gaussian;
    block.router.noise_strength = 0.1;
  });
  EXPECT_NE(std::ranges::find_if(noisy.warnings, [](const std::string& w) { return w.find("noise") != w.npos; }),
            noisy.warnings.end());
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
