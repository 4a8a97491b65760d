#include "sim/event/ep_study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "models/architecture/zoo.h"
#include "models/core/error.h"

namespace moecast {
namespace {

const std::string kData = MOECAST_SOURCE_DIR "/hwprofiles/";

const GpuMachine& h200() {
  static const GpuMachine machine = read_gpu_machine(kData + "h200-sxm");
  return machine;
}

Cluster cluster(const std::string& name) { return read_cluster(kData + "clusters/" + name + ".json"); }

/// A lone MoE layer.
Architecture layer(std::int64_t hidden, std::int64_t width, std::int64_t experts, int top_k) {
  Architecture a;
  a.name = "layer";
  a.hidden = hidden;
  a.dtype = DType::fp8_block;
  MoeBlock block;
  ExpertSpec expert;
  expert.width = width;
  block.experts.push_back({experts, expert, ""});
  block.router.top_k = top_k;
  a.decoder.push_back({{block}});
  return a;
}

Workload tokens(std::int64_t count) {
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = count;
  return w;
}

Deployment ranks(int ep) {
  Deployment d;
  d.ep = ep;
  return d;
}

EpOptions few(int samples = 8) {
  EpOptions options;
  options.samples = samples;
  return options;
}

TEST(EpCosts, UniformTrafficCostsWhatTheTableHolds) {
  // h200 sglang-0.5.12 DeepEP low latency (7168, 8, 256) on one node, 128 tokens: the curve itself is measured.
  EpLayer asked;
  asked.hidden = 7168;
  asked.width = 2048;
  asked.experts = 256;
  asked.top_k = 8;
  asked.tokens_per_rank = 128;
  asked.dtype = DType::fp8_block;
  asked.method = DispatchMethod::low_latency;
  const Topology topology(cluster("h200-hgx-rail"), 8, &h200().profile);
  const EpCosts costs = make_ep_costs(h200().kernels, asked, topology);
  KernelKey key{"sglang", "0.5.12", "wideep_deepep_ll", "deepep/dispatch", ""};
  const auto choice = h200().kernels->choose(key);
  ASSERT_TRUE(choice.model != nullptr && choice.substitution.empty());
  const std::vector<double> row{128, 128 * 8, 7168, 8, 256, 1};
  CompiledKernel::Workspace workspace;
  RankLoadCache loads;
  const auto answer = CompiledKernel(*choice.model, row, workspace).at({row}, loads);
  EXPECT_EQ(answer.origin, Origin::interpolated) << "measured";
  EXPECT_NEAR(costs.costs.dispatch_s(1) / std::exp(answer.log_seconds), 1, 1e-9);
  EXPECT_GT(costs.costs.dispatch_s(2), 1.3 * costs.costs.dispatch_s(1));
  EXPECT_LT(costs.costs.dispatch_start_s, costs.costs.dispatch_s(1));
}

TEST(EpCosts, SlowerLinksCostMoreAndSaySo) {
  EpLayer asked;
  asked.hidden = 4096;
  asked.width = 1536;
  asked.experts = 128;
  asked.top_k = 8;
  asked.tokens_per_rank = 2048;
  asked.method = DispatchMethod::normal;
  Cluster slow = cluster("h200-hgx-rail");
  slow.scale_up.bandwidth = HardwareQuantity{160e9, "B/s", {}, {}, Origin::datasheet, "H800"};
  const Topology usual(cluster("h200-hgx-rail"), 8, &h200().profile);
  const Topology slower(slow, 8, &h200().profile);
  const EpCosts a = make_ep_costs(h200().kernels, asked, usual);
  const EpCosts b = make_ep_costs(h200().kernels, asked, slower);
  EXPECT_GT(b.costs.combine_s(1), 1.2 * a.costs.combine_s(1));
  const auto dispatch = std::ranges::find(b.pieces, "dispatch", &EpPiece::stage);
  ASSERT_NE(dispatch, b.pieces.end());
  EXPECT_THAT(dispatch->substitution, ::testing::HasSubstr("links"));
}

TEST(PredictEp, TheClosedFormWhereRoutingIsFixed) {
  // Every token uses every expert: nothing is random, no link is fuller than another.
  Architecture a = layer(4096, 1536, 8, 8);
  EpOptions options = few();
  options.dispatch = DispatchMethod::normal;
  const EpPlan plan = plan_ep(h200(), cluster("h200-hgx-rail"), a, ranks(8), tokens(8 * 512), options);
  const Prediction p = predict_ep(h200(), cluster("h200-hgx-rail"), a, ranks(8), tokens(8 * 512), options);
  const MoeLayerCosts& costs = plan.studies.front().study.costs;
  const double experts = costs.experts_s({8.0 * 512, 1, 8.0 * 512});
  const double closed = costs.router_s + costs.dispatch_s(1) + experts + costs.combine_s(1);
  EXPECT_NEAR(p.latency->value() / closed, 1, 1e-3);
  EXPECT_NEAR(p.distribution->p99 / p.distribution->p50, 1, 1e-9);
  EXPECT_LE(*p.low, *p.latency);
  EXPECT_GE(*p.high, *p.latency);
}

TEST(PredictEp, DoesNotDependOnThreads) {
  const Architecture a = layer(4096, 1536, 128, 8);
  EpOptions options = few();
  const Cluster c = cluster("h200-hgx-rail");
  const Prediction one = predict_ep(h200(), c, a, ranks(8), tokens(1024), options);
  options.threads = 3;
  const Prediction three = predict_ep(h200(), c, a, ranks(8), tokens(1024), options);
  EXPECT_EQ(one.latency->value(), three.latency->value());
  EXPECT_EQ(one.distribution->p99.value(), three.distribution->p99.value());
}

TEST(PredictEp, NamesTheBottleneckOfEachScenario_B13) {
  const auto bottleneck = [](const Architecture& a, int ep, std::int64_t count, double zipf = 0,
                             const char* wires = "h200-hgx-rail", DispatchMethod method = DispatchMethod::normal) {
    Workload w = tokens(count);
    if (zipf > 0) w.load = {LoadKind::zipf, zipf, {}, 1};
    EpOptions options = few();
    options.dispatch = method;
    return predict_ep(h200(), cluster(wires), a, ranks(ep), w, options).bottleneck;
  };
  EXPECT_EQ(bottleneck(layer(4096, 8192, 256, 8), 8, 128, 0, "h200-hgx-rail", DispatchMethod::low_latency),
            "memory_bandwidth")
      << "weights of many wide experts for few tokens";
  EXPECT_EQ(bottleneck(layer(4096, 14336, 8, 2), 8, 65536), "compute") << "many rows an expert";
  EXPECT_EQ(bottleneck(layer(7168, 256, 256, 8), 64, 64 * 4096), "all_to_all") << "narrow experts behind NICs";
  EXPECT_EQ(bottleneck(layer(4096, 14336, 8, 2), 8, 16384, 2.0), "straggler") << "one expert gets most rows";
  EXPECT_EQ(bottleneck(layer(256, 32, 8, 1), 1, 1, 0, "h200-hgx-rail", DispatchMethod::nccl), "launch")
      << "nothing to do";
  const Architecture routed = layer(8192, 16, 8192, 1);
  EXPECT_EQ(bottleneck(routed, 1, 65536, 0, "h200-hgx-rail", DispatchMethod::nccl), "router")
      << "a score of thousands of tiny experts";
}

TEST(PredictEp, OneExpertARankReadsItsWeights_B13) {
  // Few rows, 350 MB of weights on every rank: 73 us at the datasheet's 4.8 TB/s, not a launch.
  EpOptions options = few();
  Workload w = tokens(64);
  Architecture a = layer(4096, 14336, 8, 2);
  a.dtype = DType::bf16;
  const Prediction p = predict_ep(h200(), cluster("h200-hgx-rail"), a, ranks(8), w, options);
  EXPECT_EQ(p.bottleneck, "memory_bandwidth");
  EXPECT_GT(p.factors.memory_bandwidth.value(), 73e-6);
}

TEST(PredictEp, FourRemediesShortenASkewedStep_B14) {
  const Cluster c = cluster("h200-hgx-rail");
  const Architecture plain = layer(4096, 14336, 64, 2);
  Workload skewed = tokens(16384);
  skewed.load = {LoadKind::zipf, 1.2, {}, 1};
  const auto ask = [&](const Architecture& a, const Workload& w, const EpOptions& options) {
    return predict_ep(h200(), c, a, ranks(8), w, options);
  };
  const Prediction before = ask(plain, skewed, few());
  const auto shortens = [&](const char* remedy, const Prediction& p) {
    EXPECT_LT(p.distribution->row_imbalance, before.distribution->row_imbalance) << remedy;
    EXPECT_LT(*p.latency, *before.latency) << remedy;
  };
  shortens("a balancing loss that has done its work", ask(plain, tokens(16384), few()));
  Architecture limited = plain;
  std::get<MoeBlock>(limited.decoder[0].blocks[0]).capacity.eval_factor = 1.25;
  shortens("capacity", ask(limited, skewed, few()));
  Architecture choice = plain;
  std::get<MoeBlock>(choice.decoder[0].blocks[0]).router.kind = RouterKind::expert_choice;
  shortens("expert choice", ask(choice, skewed, few()));
  EpOptions noisy = few();
  noisy.noise = RoutingNoise::gaussian;
  noisy.noise_strength = 2;
  shortens("noise", ask(plain, skewed, noisy));
}

TEST(PredictEp, WholeSequencesAreRoutedAsOne_C19) {
  const Cluster c = cluster("h200-hgx-rail");
  Architecture a = layer(4096, 14336, 64, 2);
  RouterSpec& router = std::get<MoeBlock>(a.decoder[0].blocks[0]).router;
  router.granularity = Granularity::sequence;
  Workload w = tokens(512);
  w.batch = 8;
  const Prediction sequences = predict_ep(h200(), c, a, ranks(8), w, few(32));
  // 8 decisions of 2 experts: at most 16 of 64 experts get rows.
  EXPECT_LE(sequences.distribution->distinct_ratio, 16.0 / 64);
  router.granularity = Granularity::segment;
  router.segment_length = 512;
  EXPECT_EQ(predict_ep(h200(), c, a, ranks(8), w, few(32)).latency->value(), sequences.latency->value());
  router.granularity = Granularity::sequence;
  w.phase = Phase::mixed;
  w.prefill_batch = 1;
  EXPECT_THROW(predict_ep(h200(), c, a, ranks(8), w, few()), InputError);
}

TEST(PlanEp, RoutersAndProjectionsAreWhatTheLayerHas) {
  const Cluster c = cluster("h200-hgx-rail");
  const auto router = [&](const auto& change) {
    Architecture a = layer(4096, 1536, 64, 2);
    change(std::get<MoeBlock>(a.decoder[0].blocks[0]));
    return plan_ep(h200(), c, a, ranks(8), tokens(4096), few()).studies.front().study.costs.router_s;
  };
  const double linear = router([](MoeBlock&) {});
  EXPECT_GT(linear, 0);
  EXPECT_EQ(router([](MoeBlock& block) { block.router.kind = RouterKind::hash; }), 0) << "nothing is scored";
  EXPECT_GT(router([](MoeBlock& block) {
              block.router.network = RouterNetwork::mlp;
              block.router.mlp_widths = {4096};
            }),
            1.5 * linear);
  // 4096 to 1024 and back, beside the scores.
  EXPECT_GT(router([](MoeBlock& block) { block.latent_width = 1024; }), 1.5 * linear);
  Architecture attention = layer(4096, 1536, 64, 2);
  std::get<MoeBlock>(attention.decoder[0].blocks[0]).router.network = RouterNetwork::attention;
  EXPECT_THROW(plan_ep(h200(), c, attention, ranks(8), tokens(64), few()), InputError);
}

TEST(PlanEp, SharedExpertsHaveTheModelsFormat) {
  Architecture a = layer(4096, 1536, 64, 2);
  SharedExperts& shared = std::get<MoeBlock>(a.decoder[0].blocks[0]).shared;
  shared.count = 1;
  shared.expert.width = 2048;
  a.dtype = DType::bf16;
  const auto seconds = [&] {
    return plan_ep(h200(), cluster("h200-hgx-rail"), a, ranks(8), tokens(8 * 2048), few())
        .studies.front()
        .study.costs.shared_s;
  };
  const double same = seconds();
  a.expert_dtype = DType::fp8_block;
  EXPECT_EQ(seconds(), same) << "routed experts alone are quantised";
  a.dtype = DType::fp8_block;
  EXPECT_LT(seconds(), same);
}

TEST(PredictEp, LinksThatAFileAssumesAreSaidToBe) {
  const Architecture a = layer(4096, 1536, 64, 2);
  EpOptions options = few();
  options.dispatch = DispatchMethod::nccl;
  EXPECT_EQ(predict_ep(h200(), cluster("tpu-like-torus"), a, ranks(8), tokens(512), options).origin, Origin::assumed);
  EXPECT_NE(predict_ep(h200(), cluster("h200-hgx-rail"), a, ranks(8), tokens(512), options).origin, Origin::assumed);
}

TEST(PredictEp, SaysWhatDoesNotFitAndWhatItCannotDo) {
  const Cluster c = cluster("h200-hgx-rail");
  const Architecture deepseek = load_zoo(MOECAST_SOURCE_DIR "/models/zoo", "deepseek-v3");
  Workload decode;
  decode.batch = 64;
  decode.context = 1024;
  EXPECT_EQ(predict_ep(h200(), c, deepseek, ranks(2), decode, few()).status, Status::does_not_fit);
  EXPECT_THROW(predict_ep(h200(), c, layer(1024, 1024, 8, 2), ranks(16), tokens(64), few()), InputError);
  EXPECT_THROW(predict_ep(h200(), c, layer(1024, 1024, 16384, 2), ranks(16384), tokens(64), few()), InputError)
      << "more ranks than the cluster has";
  Deployment cut = ranks(8);
  cut.moe_tp = 2;
  EXPECT_THROW(predict_ep(h200(), c, layer(1024, 1024, 8, 2), cut, tokens(64), few()), InputError);
  EpOptions options = few();
  options.slow_links = {{"no such link", 0.5}};
  EXPECT_THROW(predict_ep(h200(), c, layer(1024, 1024, 8, 2), ranks(8), tokens(64), options), InputError);
  options = few();
  options.slow_ranks = {{8, 2.0}};
  EXPECT_THROW(predict_ep(h200(), c, layer(1024, 1024, 8, 2), ranks(8), tokens(64), options), InputError);
  options = few();
  options.kernel = "no such kernel";
  EXPECT_THROW(predict_ep(h200(), c, layer(1024, 1024, 8, 2), ranks(8), tokens(64), options), InputError);
  options = few();
  options.dispatch = DispatchMethod::one_sided;
  EXPECT_THROW(predict_ep(h200(), c, layer(1024, 1024, 16, 2), ranks(16), tokens(64), options), InputError);
}

TEST(PredictEp, CapacityDropsRowsAndCapsTheFullestExpert) {
  Architecture a = layer(4096, 14336, 8, 2);
  Workload w = tokens(4096);
  w.load = {LoadKind::zipf, 1.5, {}, 1};
  const Cluster c = cluster("h200-hgx-rail");
  const Prediction dropless = predict_ep(h200(), c, a, ranks(8), w, few());
  std::get<MoeBlock>(a.decoder[0].blocks[0]).capacity.eval_factor = 1.0;
  const Prediction limited = predict_ep(h200(), c, a, ranks(8), w, few());
  EXPECT_EQ(dropless.distribution->dropped_ratio, 0);
  EXPECT_GT(limited.distribution->dropped_ratio, 0.2);
  EXPECT_LT(*limited.latency, *dropless.latency);
  std::get<MoeBlock>(a.decoder[0].blocks[0]).capacity.pad = true;
  const Prediction padded = predict_ep(h200(), c, a, ranks(8), w, few());
  EXPECT_NEAR(padded.distribution->row_imbalance, 1, 1e-9) << "every expert computes all its slots";
}

}  // namespace
}  // namespace moecast
