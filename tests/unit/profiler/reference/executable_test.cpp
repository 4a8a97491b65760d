#include "profiler/reference/executable.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/plan/graph.h"
#include "profiler/cpu/gemm.h"

namespace moecast {
namespace {

ExpertSpec ffn(std::int64_t width, bool gated = true) {
  ExpertSpec spec;
  spec.width = width;
  spec.gated = gated;
  if (!gated) spec.activation = Activation::relu;
  return spec;
}

MoeBlock moe_of(std::int64_t experts, int top_k, const ExpertSpec& spec = ffn(48)) {
  MoeBlock moe;
  moe.experts = {{experts, spec, ""}};
  moe.router.top_k = top_k;
  return moe;
}

Architecture layer_of(const MoeBlock& moe, std::int64_t hidden = 64) {
  Architecture a;
  a.name = "layer";
  a.hidden = hidden;
  a.dtype = DType::fp32;
  a.decoder = {{{moe}}};
  return a;
}

Deployment on(const std::string& backend, DType dtype = DType::fp32, int threads = 1,
              KernelStrategy strategy = KernelStrategy::sorted_grouped) {
  Deployment d;
  d.backend = backend;
  d.dtype = dtype;
  d.threads = threads;
  d.strategy = strategy;
  return d;
}

Workload tokens(std::int64_t count) {
  Workload w;
  w.batch = count;
  w.load.kind = LoadKind::zipf;
  w.load.parameter = 1;
  return w;
}

/// Largest difference of two outputs over the largest number of the reference.
double difference(const Matrix& got, const Matrix& expected) {
  EXPECT_EQ(got.rows, expected.rows);
  EXPECT_EQ(got.cols, expected.cols);
  double worst = 0;
  double largest = 1e-30;
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    EXPECT_TRUE(std::isfinite(got.values[i]));
    worst = std::max(worst, static_cast<double>(std::abs(got.values[i] - expected.values[i])));
    largest = std::max(largest, static_cast<double>(std::abs(expected.values[i])));
  }
  return worst / largest;
}

/// fp32 sums of a few hundred terms; bf16 rounds inputs and activations to 2^-9, in layers one after another.
double tolerance(DType dtype) { return dtype == DType::bf16 ? 0.03 : 2e-5; }

constexpr std::array kStrategies{KernelStrategy::sorted_grouped, KernelStrategy::per_expert_loop,
                                 KernelStrategy::capacity_padded, KernelStrategy::dense_mask};

void expect_equal_to_oracle(const Architecture& a, const Deployment& d, const Workload& w,
                            const ExecutableOptions& options = {}) {
  const auto executable = make_executable(a, d, w, options);
  executable->prepare();
  executable->run();
  executable->run();
  EXPECT_LT(difference(executable->output(), executable->reference_output()), tolerance(*d.dtype))
      << d.backend << ' ' << to_string(*d.dtype) << ' ' << to_string(d.strategy) << ' ' << w.batch << " tokens";
  const Counters& c = executable->counters();
  EXPECT_EQ(c.demanded, c.routed + c.dropped);
}

TEST(Executable, EqualsTheOracleInEveryStrategyBackendAndDtype_B4) {
  for (const std::string& backend : gemm_backends()) {
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      if (!gemm_supports(backend, dtype)) continue;
      for (const KernelStrategy strategy : kStrategies) {
        for (const std::int64_t count : {1, 7, 33, 130}) {
          expect_equal_to_oracle(layer_of(moe_of(8, 2)), on(backend, dtype, 1, strategy), tokens(count));
        }
        expect_equal_to_oracle(layer_of(moe_of(6, 3, ffn(40, false))), on(backend, dtype, 2, strategy), tokens(50));
      }
    }
  }
}

std::vector<MoeBlock> routings() {
  std::vector<MoeBlock> all;
  MoeBlock renormalised = moe_of(8, 2);
  renormalised.router.renormalise = true;
  MoeBlock after = moe_of(8, 2);
  after.router.order = ScoreOrder::top_k_then_score;
  MoeBlock grouped = moe_of(8, 2);
  grouped.router.score = ScoreFunction::sigmoid;
  grouped.router.selection_bias = true;
  grouped.router.groups = 4;
  grouped.router.top_groups = 2;
  grouped.router.scale = 2.5;
  MoeBlock choice = moe_of(8, 2);
  choice.router.kind = RouterKind::expert_choice;
  MoeBlock mlp = moe_of(8, 1);
  mlp.router.network = RouterNetwork::mlp;
  mlp.router.mlp_widths = {32};
  MoeBlock shared = moe_of(8, 2);
  shared.shared = {2, ffn(16), true};
  shared.dense_residual = ffn(24);
  MoeBlock mixed = moe_of(4, 2);
  mixed.experts.push_back({2, ffn(96, false), ""});
  ExpertSpec identity;
  identity.kind = ExpertKind::identity;
  mixed.experts.push_back({1, identity, ""});
  MoeBlock deep = moe_of(4, 2);
  deep.experts[0].expert.depth = 2;
  deep.experts[0].expert.bias = true;
  MoeBlock soft = moe_of(4, 4);
  soft.router.kind = RouterKind::soft;
  for (const Overflow overflow : {Overflow::drop, Overflow::next_best}) {
    MoeBlock limited = moe_of(8, 2);
    limited.capacity.eval_factor = 0.5;
    limited.capacity.overflow = overflow;
    all.push_back(limited);
    limited.capacity.eval_factor = 1.25;
    all.push_back(limited);
  }
  for (const MoeBlock& block : {renormalised, after, grouped, choice, mlp, shared, mixed, deep, soft}) {
    all.push_back(block);
  }
  return all;
}

TEST(Executable, EqualsTheOracleUnderEveryRouting_B6_B8_D4) {
  for (const MoeBlock& moe : routings()) {
    for (const KernelStrategy strategy : kStrategies) {
      for (const bool planted : {false, true}) {
        ExecutableOptions options;
        options.planted = planted;
        expect_equal_to_oracle(layer_of(moe), on("eigen", DType::fp32, 1, strategy), tokens(24), options);
      }
    }
  }
}

TEST(Executable, NoisyTrainingRoutingEqualsTheOracle_D7) {
  MoeBlock moe = moe_of(10, 4, ffn(64, false));
  moe.router.noise = NoiseKind::learned_gaussian;
  moe.router.noise_strength = 1e-2;
  moe.router.order = ScoreOrder::top_k_then_score;
  for (auto& group : moe.experts) group.expert.output = 20;
  ExecutableOptions options;
  options.planted = false;
  options.training = true;
  expect_equal_to_oracle(layer_of(moe, 100), on("eigen"), tokens(5), options);
}

TEST(Executable, RunsTheToyMixtureOfThreeSmallNetworks_D6) {
  MoeBlock toy = moe_of(3, 3, ffn(32, false));
  toy.experts[0].expert.output = 3;
  toy.router.network = RouterNetwork::mlp;
  toy.router.mlp_widths = {128, 256, 128};
  ExecutableOptions options;
  options.planted = false;
  const auto executable =
      make_executable(layer_of(toy, 4), on("eigen", DType::fp32, 1, KernelStrategy::dense_mask), tokens(7), options);
  executable->prepare();
  executable->run();
  const Matrix out = executable->output();
  EXPECT_EQ(out.rows, 7);
  EXPECT_EQ(out.cols, 3);
  EXPECT_LT(difference(out, executable->reference_output()), 2e-5);
  EXPECT_EQ(executable->rows_per_expert(0), (std::vector<std::int64_t>{7, 7, 7}));
}

TEST(Executable, CountsWhatTheGraphLists_A2_B4) {
  for (const KernelStrategy strategy : kStrategies) {
    const Architecture a = layer_of(moe_of(8, 2));
    const Deployment d = on("eigen", DType::fp32, 1, strategy);
    const auto executable = make_executable(a, d, tokens(40), {});
    executable->prepare();
    executable->run();
    Workload exact = tokens(40);
    exact.rows_per_expert = executable->rows_per_expert(0);
    double flops = 0;
    double combine = 0;
    for (const Operator& op : build_graph(a, d, exact).operators) {
      flops += op.flops.value();
      if (op.stage == "combine") combine += op.activation_bytes.value();
    }
    const Counters& c = executable->counters();
    EXPECT_DOUBLE_EQ(c.total().flops.value(), flops) << to_string(strategy);
    if (strategy == KernelStrategy::sorted_grouped) {
      EXPECT_DOUBLE_EQ((c[Stage::combine].read_bytes + c[Stage::combine].written_bytes).value(), combine);
    }
    EXPECT_EQ(c.demanded, 80);
  }
}

TEST(Executable, PlantsExactlyTheHistogramItIsGiven) {
  Workload w = tokens(16);
  w.rows_per_expert = {16, 0, 4, 4, 4, 2, 1, 1};
  const auto executable = make_executable(layer_of(moe_of(8, 2)), on("eigen"), w, {});
  executable->prepare();
  for (int i = 0; i < 3; ++i) {
    executable->run();
    EXPECT_EQ(executable->rows_per_expert(0), w.rows_per_expert);
  }
}

TEST(Executable, HalfTheCapacityOfABalancedLoadDropsHalf_A8) {
  MoeBlock moe = moe_of(8, 2);
  moe.capacity.eval_factor = 0.5;
  Workload w = tokens(32);
  w.rows_per_expert.assign(8, 8);
  const auto executable = make_executable(layer_of(moe), on("eigen"), w, {});
  executable->prepare();
  executable->run();
  EXPECT_EQ(executable->counters().dropped, 32);
  EXPECT_EQ(executable->counters().routed + executable->counters().dropped, 32 * 2);
  moe.capacity.eval_factor = 8;
  const auto roomy = make_executable(layer_of(moe), on("eigen"), w, {});
  roomy->prepare();
  roomy->run();
  EXPECT_EQ(roomy->counters().dropped, 0);
}

TEST(Executable, NextBestLeavesNothingOutWhereThereIsRoomForAll_B8) {
  MoeBlock moe = moe_of(8, 2);
  moe.capacity.eval_factor = 1;
  ExecutableOptions options;
  options.planted = false;  // scores that are skewed enough to overflow
  const auto dropped = [&](Overflow overflow) {
    moe.capacity.overflow = overflow;
    const auto executable = make_executable(layer_of(moe), on("eigen"), tokens(32), options);
    executable->prepare();
    executable->run();
    const Counters& c = executable->counters();
    EXPECT_EQ(c.routed + c.dropped, c.demanded);
    EXPECT_EQ(c.demanded, 64);
    return c.dropped;
  };
  EXPECT_GT(dropped(Overflow::drop), 0);
  EXPECT_EQ(dropped(Overflow::next_best), 0);
}

TEST(Executable, CopiesAreCycledAndAnEvictedModelComesBack) {
  Workload w = tokens(5);
  w.copies = 3;
  ExecutableOptions options;
  options.arena = std::make_shared<Arena>();
  const auto first = make_executable(layer_of(moe_of(4, 2)), on("eigen"), w, options);
  const auto second = make_executable(layer_of(moe_of(6, 2)), on("eigen"), w, options);
  for (int round = 0; round < 2; ++round) {
    for (const auto& executable : {first, second}) {
      executable->prepare();
      for (int i = 0; i < 4; ++i) {
        executable->run();
        EXPECT_LT(difference(executable->output(), executable->reference_output()), 2e-5);
      }
    }
  }
}

Architecture transformer(int layers, std::int64_t vocabulary) {
  Architecture a = layer_of(moe_of(4, 2));
  a.vocabulary = vocabulary;
  AttentionBlock attention;
  attention.heads = 4;
  attention.kv_heads = 2;
  attention.head_dim = 16;
  a.decoder.clear();
  for (int i = 0; i < layers; ++i) {
    Layer layer{{attention}};
    if (i % 2 == 0) {
      layer.blocks.emplace_back(moe_of(4, 2));
    } else {
      layer.blocks.emplace_back(DenseFfnBlock{ffn(96)});
    }
    a.decoder.push_back(layer);
  }
  return a;
}

TEST(Executable, WholeTransformersEqualTheOracleInPrefillAndDecode) {
  for (const auto& [backend, dtype] :
       {std::pair{std::string("eigen"), DType::fp32}, {gemm_backends()[0], DType::fp32}}) {
    for (const std::int64_t vocabulary : {0, 50}) {
      Workload prefill;
      prefill.phase = Phase::prefill;
      prefill.batch = 2;
      prefill.prompt = 9;
      expect_equal_to_oracle(transformer(4, vocabulary), on(backend, dtype), prefill);
      Workload decode;
      decode.batch = 3;
      decode.context = 11;
      expect_equal_to_oracle(transformer(6, vocabulary), on(backend, dtype, 2), decode);
    }
  }
}

TEST(MakeExecutable, RefusesWhatItDoesNotRun) {
  Architecture windowed = transformer(2, 0);
  std::get<AttentionBlock>(windowed.decoder[0].blocks[0]).window = 8;
  EXPECT_THROW(make_executable(windowed, on("eigen"), tokens(2), {}), Error);
  EXPECT_THROW(make_executable(layer_of(moe_of(4, 5)), on("eigen"), tokens(2), {}), Error);
  EXPECT_THROW(make_executable(layer_of(moe_of(4, 2)), on("nothing"), tokens(2), {}), Error);
}

}  // namespace
}  // namespace moecast
