#include "models/plan/graph.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "models/architecture/accounting.h"
#include "models/core/error.h"

namespace moecast {
namespace {

MoeBlock moe_of(std::int64_t experts, int top_k, std::int64_t width, bool gated = true) {
  MoeBlock moe;
  ExpertSpec spec;
  spec.width = width;
  spec.gated = gated;
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

Workload tokens(std::int64_t count) {
  Workload w;
  w.batch = count;
  return w;
}

double flops(const OperatorGraph& graph) {
  double sum = 0;
  for (const Operator& op : graph.operators) sum += op.flops.value() * op.count;
  return sum;
}

Operator named(const OperatorGraph& graph, const std::string& end) {
  for (const Operator& op : graph.operators) {
    if (op.name.ends_with(end)) return op;
  }
  throw std::runtime_error("no operator " + end);
}

Deployment with(KernelStrategy strategy) {
  Deployment d;
  d.strategy = strategy;
  return d;
}

TEST(BuildGraph, AMoeLayerHasItsStagesInOrder_A1) {
  const auto graph = build_graph(layer_of(moe_of(8, 2, 32)), {}, tokens(16));
  std::vector<std::string> stages;
  double weights = 0;
  for (const Operator& op : graph.operators) {
    if (stages.empty() || stages.back() != op.stage) stages.push_back(op.stage);
    weights += op.weight_bytes.value();
  }
  EXPECT_EQ(stages, (std::vector<std::string>{"router", "dispatch", "experts", "combine"}));
  // Router 16 * 64 * 8 and experts 16 * 2 rows of three 64 x 32 matrices, two operations each.
  EXPECT_DOUBLE_EQ(flops(graph), 2.0 * 16 * 64 * 8 + 2.0 * 32 * 3 * 64 * 32);
  EXPECT_LE(weights, 4.0 * (64 * 8 + 8 * 3 * 64 * 32) + 1);
}

TEST(BuildGraph, CombineReadsTkhAndWritesTh_A2) {
  const Operator combine = named(build_graph(layer_of(moe_of(8, 2, 32)), {}, tokens(16)), ".unpermute");
  EXPECT_DOUBLE_EQ(combine.activation_bytes.value(), 4.0 * (16 * 2 * 64 + 16 * 64));
}

TEST(BuildGraph, StrategiesChangeRowsAndFlops_B4) {
  Workload w = tokens(16);
  w.rows_per_expert = {10, 0, 6, 4, 4, 4, 2, 2};
  const auto grouped = build_graph(layer_of(moe_of(8, 2, 32)), with(KernelStrategy::sorted_grouped), w);
  const auto looped = build_graph(layer_of(moe_of(8, 2, 32)), with(KernelStrategy::per_expert_loop), w);
  const auto padded = build_graph(layer_of(moe_of(8, 2, 32)), with(KernelStrategy::capacity_padded), w);
  const auto masked = build_graph(layer_of(moe_of(8, 2, 32)), with(KernelStrategy::dense_mask), w);
  const double router = 2.0 * 16 * 64 * 8;
  const double row = 2.0 * 3 * 64 * 32;
  EXPECT_DOUBLE_EQ(flops(grouped), router + 32 * row);
  EXPECT_DOUBLE_EQ(flops(looped), router + 32 * row);
  EXPECT_DOUBLE_EQ(flops(padded), router + 8 * 10 * row);  // every expert as full as the fullest
  EXPECT_DOUBLE_EQ(flops(masked), router + 8 * 16 * row);
  EXPECT_EQ(named(grouped, ".gate_up").shape.experts, 7);  // the empty one costs nothing
  EXPECT_EQ(named(looped, ".gate_up").input_reuse->value(), 0);
  EXPECT_GT(named(grouped, ".gate_up").input_reuse->value(), 0);
  EXPECT_THROW(named(masked, ".permute"), std::runtime_error);
}

TEST(BuildGraph, HalfTheCapacityKeepsHalfTheRowsOfABalancedLoad_A8) {
  MoeBlock moe = moe_of(8, 2, 32);
  moe.capacity.eval_factor = 0.5;
  Workload w = tokens(32);
  w.rows_per_expert.assign(8, 8);
  EXPECT_EQ(named(build_graph(layer_of(moe), {}, w), ".gate_up").shape.m, 32);  // of 64
}

TEST(BuildGraph, ExpertChoiceGivesEveryExpertEquallyMany_B6) {
  MoeBlock moe = moe_of(8, 2, 32);
  moe.router.kind = RouterKind::expert_choice;
  const Operator up = named(build_graph(layer_of(moe), {}, tokens(32)), ".gate_up");
  ASSERT_EQ(up.rows.size(), 1U);
  EXPECT_EQ(up.rows[0].rows, 8);  // 32 * 2 / 8
  EXPECT_EQ(up.rows[0].experts, 8);
}

TEST(BuildGraph, TwoThinHopsCostOneWideExpertInTwiceTheCalls_A6) {
  ExpertSpec wide = moe_of(8, 2, 64).experts[0].expert;
  ExpertSpec deep = wide;
  deep.width = 32;
  deep.depth = 2;
  const auto graph_of = [](const ExpertSpec& expert) {
    MoeBlock moe = moe_of(8, 2, 64);
    moe.experts[0].expert = expert;
    return build_graph(layer_of(moe), {}, tokens(16));
  };
  const auto calls = [](const OperatorGraph& graph) {
    return std::count_if(graph.operators.begin(), graph.operators.end(),
                         [](const Operator& op) { return op.kind == OperatorKind::grouped_gemm; });
  };
  EXPECT_EQ(calls(graph_of(wide)), 2);
  EXPECT_EQ(calls(graph_of(deep)), 4);
  EXPECT_NEAR(flops(graph_of(deep)), flops(graph_of(wide)), 1e-6 * flops(graph_of(wide)));
}

TEST(BuildGraph, AllExpertsActiveDoTheFlopsOfTheWideDenseNetwork_A3) {
  const auto all = build_graph(layer_of(moe_of(8, 8, 32)), {}, tokens(16));
  Architecture dense = layer_of(moe_of(8, 8, 32));
  DenseFfnBlock wide;
  wide.ffn = moe_of(1, 1, 8 * 32).experts[0].expert;
  dense.decoder = {{{wide}}};
  const double router = 2.0 * 16 * 64 * 8;
  EXPECT_NEAR((flops(all) - router) / flops(build_graph(dense, {}, tokens(16))), 1, 1e-12);
}

TEST(BuildGraph, SparseExpertsDoKOverNOfTheFlopsOfAllOfThem_B9_D4) {
  const auto experts_flops = [](const MoeBlock& moe, KernelStrategy strategy) {
    double sum = 0;
    for (const Operator& op : build_graph(layer_of(moe), with(strategy), tokens(16)).operators) {
      if (op.stage == "experts") sum += op.flops.value();
    }
    return sum;
  };
  const double sparse = experts_flops(moe_of(8, 2, 32), KernelStrategy::sorted_grouped);
  MoeBlock soft = moe_of(8, 2, 32);
  soft.router.kind = RouterKind::soft;
  EXPECT_NEAR(sparse / experts_flops(moe_of(8, 8, 32), KernelStrategy::sorted_grouped), 2.0 / 8, 1e-12);
  EXPECT_NEAR(sparse / experts_flops(soft, KernelStrategy::sorted_grouped), 2.0 / 8, 1e-12);
  EXPECT_NEAR(sparse / experts_flops(moe_of(8, 2, 32), KernelStrategy::dense_mask), 2.0 / 8, 1e-12);
}

TEST(BuildGraph, ChunksReadTheWeightsAgainAndComputeTheSame_B12) {
  Workload w = tokens(32);
  w.rows_per_expert.assign(8, 8);
  const auto whole = build_graph(layer_of(moe_of(8, 2, 32)), {}, w);
  w.chunks = 4;
  const auto parts = build_graph(layer_of(moe_of(8, 2, 32)), {}, w);
  EXPECT_DOUBLE_EQ(flops(parts), flops(whole));
  const Operator up = named(parts, ".gate_up");
  EXPECT_EQ(up.rows[0].rows, 2);
  EXPECT_EQ(up.weight_bytes, 4 * named(whole, ".gate_up").weight_bytes);
  w.chunks = 100;  // no part without a row
  EXPECT_EQ(named(build_graph(layer_of(moe_of(8, 2, 32)), {}, w), ".gate_up").rows[0].rows, 1);
}

TEST(BuildGraph, SubTokensAreMoreAndNarrowerWithEqualBytesToDispatch_C16) {
  MoeBlock one = moe_of(8, 2, 32);
  one.sub_token_heads = 1;
  MoeBlock four = moe_of(8, 2, 32);
  four.sub_token_heads = 4;
  Deployment spread;
  spread.ep = 2;
  const auto plain = build_graph(layer_of(moe_of(8, 2, 32)), spread, tokens(16));
  const auto single = build_graph(layer_of(one), spread, tokens(16));
  const auto split = build_graph(layer_of(four), spread, tokens(16));
  ASSERT_EQ(single.operators.size(), plain.operators.size());
  for (std::size_t i = 0; i < plain.operators.size(); ++i) {
    EXPECT_EQ(single.operators[i].name, plain.operators[i].name);
    EXPECT_EQ(single.operators[i].shape, plain.operators[i].shape);
    EXPECT_EQ(single.operators[i].activation_bytes, plain.operators[i].activation_bytes);
  }
  EXPECT_EQ(named(split, ".top_k").shape.tokens, 4 * named(plain, ".top_k").shape.tokens);
  EXPECT_EQ(named(split, ".permute").shape.tokens, 64);
  EXPECT_EQ(named(split, ".permute").shape.hidden, 16);  // of 64 columns
  for (const char* moved : {".dispatch", ".combine"}) {
    EXPECT_EQ(named(split, moved).shape, named(plain, moved).shape) << moved;
    EXPECT_EQ(named(split, moved).activation_bytes, named(plain, moved).activation_bytes) << moved;
  }
  // 64 sub-tokens choose 2 experts each, 2 ranks share them: 64 rows on this one, three 16 x 32 matrices a row.
  double experts = 0;
  for (const Operator& op : split.operators) experts += op.stage == "experts" ? op.flops.value() : 0;
  EXPECT_NEAR(experts, 2.0 * 64 * 3 * 16 * 32, 1e-6);
  EXPECT_EQ(named(split, ".heads_in").shape.k, 64);  // both projections see the whole token
  EXPECT_EQ(named(split, ".heads_out").shape.m, 16);
}

TEST(BuildGraph, SplittingExpertsKeepsFlopsAndTouchesMore_C15) {
  const auto whole = build_graph(layer_of(moe_of(8, 2, 64)), {}, tokens(16));
  const auto split = build_graph(layer_of(moe_of(16, 4, 32)), {}, tokens(16));
  const auto expert_flops_of = [](const OperatorGraph& g) {
    double sum = 0;
    for (const Operator& op : g.operators) sum += op.stage == "experts" ? op.flops.value() : 0;
    return sum;
  };
  EXPECT_NEAR(expert_flops_of(whole) / expert_flops_of(split), 1, 1e-9);
  EXPECT_GT(named(split, ".gate_up").shape.experts, named(whole, ".gate_up").shape.experts);
  EXPECT_GT(named(split, ".permute").activation_bytes, named(whole, ".permute").activation_bytes);
}

TEST(BuildGraph, AListOfEqualExpertsRunsAsTheHomogeneousLayer_A16) {
  MoeBlock listed = moe_of(8, 2, 32);
  listed.experts.assign(8, listed.experts[0]);
  for (auto& group : listed.experts) group.count = 1;
  Workload w = tokens(16);
  w.rows_per_expert = {10, 0, 6, 4, 4, 4, 2, 2};
  EXPECT_DOUBLE_EQ(flops(build_graph(layer_of(listed), {}, w)), flops(build_graph(layer_of(moe_of(8, 2, 32)), {}, w)));
}

TEST(BuildGraph, FootprintHoldsTouchedWeightsCopiesAndActivations) {
  Workload w = tokens(4);
  w.rows_per_expert = {4, 4, 0, 0, 0, 0, 0, 0};
  w.copies = 3;
  Deployment d;
  d.backend = "onednn";
  const auto graph = build_graph(layer_of(moe_of(8, 2, 32)), d, w);
  // Router 64 x 8 stored 64 wide; two experts: gate and up 64 x 64, down 32 x 64; fp32.
  const double weights = 4.0 * (64 * 64 + 2 * (64 * 64 + 32 * 64));
  EXPECT_GT(graph.footprint.value(), 3 * weights);
  EXPECT_LT(graph.footprint.value(), 3 * weights + 40e3);
  EXPECT_NEAR(graph.footprint.value() - graph.layer_footprint.value(), 2 * weights, 1);
}

Architecture transformer(int layers) {
  Architecture a = layer_of(moe_of(8, 2, 32));
  a.vocabulary = 1000;
  AttentionBlock attention;
  attention.heads = 4;
  attention.kv_heads = 2;
  attention.head_dim = 16;
  a.decoder.assign(static_cast<std::size_t>(layers), {{attention, moe_of(8, 2, 32)}});
  return a;
}

TEST(BuildGraph, FoldsEqualLayersAndCountsWhatTheModelCounts) {
  Workload w = tokens(3);
  w.context = 20;
  const Architecture a = transformer(12);
  const auto graph = build_graph(a, {}, w);
  EXPECT_LT(graph.operators.size(), 30U);
  const double head = 2.0 * 3 * 1000 * 64;
  EXPECT_NEAR(flops(graph), step_flops(a, 3, 1, 20).value() + head, 1);
  w.phase = Phase::prefill;
  w.prompt = 5;
  w.context = 0;
  EXPECT_NEAR(flops(build_graph(a, {}, w)), step_flops(a, 3, 5, 0).value() + head, 1);
}

TEST(BuildGraph, SaysWhatDoesNotDivideAndWhatIsNotSupported) {
  Deployment d;
  d.tp = 3;
  EXPECT_THROW(build_graph(transformer(2), d, tokens(3)), InputError);
  EXPECT_THROW(build_graph(transformer(2), {}, tokens(0)), InputError);
  MoeBlock hashed = moe_of(8, 2, 32);
  hashed.router.kind = RouterKind::hash;
  const auto graph = build_graph(layer_of(hashed), {}, tokens(4));
  ASSERT_EQ(graph.not_executed.size(), 1U);
  EXPECT_NE(graph.not_executed[0].find("a hash router is not supported yet"), std::string::npos);
}

TEST(BuildGraph, ExpertsAreCostedInTheFormatThatTheyAreStoredIn) {
  Architecture a = layer_of(moe_of(8, 2, 32));
  a.expert_dtype = DType::mxfp4;
  const auto stored = build_graph(a, {}, tokens(16));
  EXPECT_EQ(named(stored, ".gate_up").dtype, DType::mxfp4);
  EXPECT_EQ(named(stored, ".activation").dtype, a.dtype);
  EXPECT_EQ(named(stored, ".router").dtype, a.dtype);
  Deployment asked;
  asked.dtype = DType::bf16;
  EXPECT_EQ(named(build_graph(a, asked, tokens(16)), ".gate_up").dtype, DType::bf16);
}

TEST(BuildGraph, RanksThatShareAnExpertAddUpTheirParts) {
  const auto reductions = [](const OperatorGraph& graph) {
    return std::ranges::count(graph.operators, OperatorKind::all_reduce, &Operator::kind);
  };
  Deployment split;
  split.tp = 2;
  const auto graph = build_graph(layer_of(moe_of(8, 2, 32)), split, tokens(16));
  ASSERT_EQ(reductions(graph), 1);
  EXPECT_EQ(named(graph, ".all_reduce").activation_bytes.value(), 16 * 64 * 4);  // 16 tokens of 64 fp32 numbers
  Deployment spread = split;
  spread.ep = 2;  // whole experts: rows come back from where they were computed
  EXPECT_EQ(reductions(build_graph(layer_of(moe_of(8, 2, 32)), spread, tokens(16))), 0);
  MoeBlock shared = moe_of(8, 2, 32);
  shared.shared = {1, shared.experts[0].expert};
  EXPECT_EQ(reductions(build_graph(layer_of(shared), spread, tokens(16))), 1);
  EXPECT_EQ(reductions(build_graph(layer_of(shared), {}, tokens(16))), 0);
}

TEST(BuildGraph, ExpertsMayReturnAnotherWidth_D7) {
  MoeBlock moe = moe_of(8, 2, 32, false);
  moe.experts[0].expert.output = 20;
  const auto graph = build_graph(layer_of(moe), {}, tokens(16));
  EXPECT_EQ(named(graph, ".down").shape.n, 20);
  EXPECT_EQ(named(graph, ".unpermute").shape.hidden, 20);
}

double rows_of(const Operator& op) {
  double rows = 0;
  for (const RowGroup& group : op.rows) rows += group.rows * group.experts;
  return rows;
}

TEST(BuildGraph, TokensGoToTheExpertsOfTheirModality_C24) {
  MoeBlock moe = moe_of(8, 2, 32);
  moe.experts.push_back(moe.experts[0]);
  moe.experts[0].modality = "text";
  moe.experts[1].modality = "image";
  moe.experts[1].expert.width = 16;
  // Without shares all are text.
  const OperatorGraph text = build_graph(layer_of(moe), {}, tokens(40));
  EXPECT_TRUE(text.not_executed.empty());
  EXPECT_NEAR(rows_of(named(text, ".experts0.down")), 80, 1e-9);
  for (const Operator& op : text.operators) EXPECT_EQ(op.name.find(".experts1"), std::string::npos) << op.name;
  // A quarter images: 10 and 30 tokens, two experts each, and each kind scores its own experts only.
  Workload mixed = tokens(40);
  mixed.modalities = {{"text", 0.75}, {"image", 0.25}};
  const OperatorGraph both = build_graph(layer_of(moe), {}, mixed);
  EXPECT_NEAR(rows_of(named(both, ".experts0.down")), 60, 1e-9);
  EXPECT_NEAR(rows_of(named(both, ".experts1.down")), 20, 1e-9);
  EXPECT_EQ(named(both, ".experts1.down").shape.k, 16);
  EXPECT_EQ(named(both, ".router.text").shape.m, 30);
  EXPECT_EQ(named(both, ".router.image").shape.m, 10);
  EXPECT_EQ(named(both, ".router.image").shape.n, 8);
  // Experts without a modality are for all.
  moe.experts[0].modality.clear();
  mixed.modalities = {{"image", 1}};
  const OperatorGraph shared = build_graph(layer_of(moe), {}, mixed);
  EXPECT_NEAR(rows_of(named(shared, ".experts0.down")), 40, 1e-9);
  EXPECT_NEAR(rows_of(named(shared, ".experts1.down")), 40, 1e-9);
}

TEST(BuildGraph, AHierarchicalRouterScoresTheChosenCoarseExpertsOnly_C1) {
  MoeBlock moe = moe_of(64, 4, 32);
  moe.router.coarse_experts = 8;
  moe.router.coarse_top_k = 2;
  const OperatorGraph graph = build_graph(layer_of(moe), {}, tokens(100));
  EXPECT_TRUE(graph.not_executed.empty());
  EXPECT_EQ(named(graph, ".router.coarse").shape.n, 8);
  EXPECT_EQ(named(graph, ".router.fine").shape.n, 8);             // 64 experts in 8 coarse ones
  EXPECT_NEAR(rows_of(named(graph, ".router.fine")), 200, 1e-9);  // two coarse experts a token
  EXPECT_EQ(named(graph, ".top_k.fine").shape.top_k, 2);          // of each, two fine ones
  EXPECT_NEAR(rows_of(named(graph, ".experts.down")), 400, 1e-9);
}

}  // namespace
}  // namespace moecast
