// Networks of a router beyond one matrix: their cost is that of what they consist of.

#include <gtest/gtest.h>

#include "models/architecture/accounting.h"
#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/plan/graph.h"
#include "models/plan/memory.h"

namespace moecast {
namespace {

constexpr std::int64_t kHidden = 64;

AttentionBlock attention() {
  AttentionBlock block;
  block.heads = 4;
  block.kv_heads = 2;
  block.head_dim = 16;
  return block;
}

MoeBlock experts() {
  MoeBlock moe;
  ExpertSpec spec;
  spec.width = 32;
  moe.experts = {{8, spec, ""}};
  moe.router.top_k = 2;
  return moe;
}

Architecture model_of(const Block& block) {
  Architecture a;
  a.name = "layer";
  a.hidden = kHidden;
  a.dtype = DType::fp32;
  a.decoder = {{{block}}};
  return a;
}

Workload step(Phase phase) {
  Workload w;
  w.phase = phase;
  w.batch = 3;
  w.prompt = 40;
  w.context = 100;
  return w;
}

struct Sum {
  double flops = 0;
  double bytes = 0;
};

Sum sum_of(const OperatorGraph& graph, std::string_view stage = "") {
  Sum sum;
  for (const Operator& op : graph.operators) {
    if (!stage.empty() && op.stage != stage) continue;
    sum.flops += op.flops.value() * op.count;
    sum.bytes += (op.weight_bytes + op.activation_bytes).value() * op.count;
  }
  return sum;
}

TEST(RouterNetwork, AttentionCostsWhatAttentionCosts_C6) {
  MoeBlock by_attention = experts();
  by_attention.router.network = RouterNetwork::attention;
  by_attention.router.attention = attention();
  for (const Phase phase : {Phase::prefill, Phase::decode}) {
    const Workload w = step(phase);
    const OperatorGraph graph = build_graph(model_of(by_attention), {}, w);
    EXPECT_TRUE(graph.not_executed.empty());
    const Sum plain = sum_of(build_graph(model_of(experts()), {}, w), "router");
    const Sum alone = sum_of(build_graph(model_of(attention()), {}, w));
    const Sum both = sum_of(graph, "router");
    EXPECT_DOUBLE_EQ(both.flops, plain.flops + alone.flops);
    EXPECT_DOUBLE_EQ(both.bytes, plain.bytes + alone.bytes);
    // The formula: four projections, and two products with each key that a token sees.
    const double tokens = phase == Phase::prefill ? 3 * 40 : 3;
    const double seen = phase == Phase::prefill ? 3.0 * (40 * 100 + 40 * 41 / 2) : 3 * 101;
    EXPECT_DOUBLE_EQ(alone.flops, 2 * tokens * kHidden * 16 * (4 + 2 + 2 + 4) + 2 * seen * 4 * (16 + 16));
  }
}

TEST(RouterNetwork, AttentionHasParametersAndACache_C6) {
  MoeBlock by_attention = experts();
  by_attention.router.network = RouterNetwork::attention;
  by_attention.router.attention = attention();
  const double projections = kHidden * 16.0 * (4 + 2 + 2 + 4);
  EXPECT_DOUBLE_EQ(router_parameters(by_attention.router, 8, kHidden), kHidden * 8 + projections);
  const Workload w = step(Phase::decode);
  const auto memory = [&](const Block& block) { return memory_per_rank(model_of(block), {}, w); };
  EXPECT_EQ(memory(experts()).kv_cache.value(), 0);
  EXPECT_GT(memory(attention()).kv_cache.value(), 0);
  EXPECT_EQ(memory(by_attention).kv_cache, memory(attention()).kv_cache);
  EXPECT_DOUBLE_EQ((memory(by_attention).weights - memory(experts()).weights).value(), 4 * projections);
}

TEST(RouterNetwork, OwnCostIsWhatTheUserStates_C6) {
  MoeBlock own = experts();
  own.router.network = RouterNetwork::own_cost;
  own.router.own_cost = OwnCostBlock{"policy", 1000, 5e4, 300};
  const Workload w = step(Phase::prefill);
  const OperatorGraph graph = build_graph(model_of(own), {}, w);
  EXPECT_TRUE(graph.not_executed.empty());
  const Sum router = sum_of(graph, "router");
  EXPECT_DOUBLE_EQ(router.flops, 120 * 5e4);
  const Sum choice = sum_of(build_graph(model_of(experts()), {}, w), "router");
  const double scores = 120.0 * (kHidden + 8) * 4 + kHidden * 8 * 4;  // the matrix that is not there
  EXPECT_DOUBLE_EQ(router.bytes, choice.bytes - scores + 4 * 1000 + 120 * 300);
  EXPECT_DOUBLE_EQ(router_flops(own.router, 8, kHidden, 10).value(), 5e5);
  EXPECT_DOUBLE_EQ(router_parameters(own.router, 8, kHidden), 1000);
  Architecture routed = model_of(own);
  const double rest = step_flops(model_of(experts()), 3, 40, 0).value() - 2 * 120.0 * kHidden * 8;
  EXPECT_DOUBLE_EQ(step_flops(routed, 3, 40, 0).value(), rest + 120 * 5e4);
}

TEST(RouterNetwork, OwnCostOfAHierarchyIsNotGuessed_C6) {
  MoeBlock own = experts();
  own.router.network = RouterNetwork::own_cost;
  own.router.own_cost = OwnCostBlock{"policy", 1000, 5e4, 300};
  own.router.coarse_experts = 2;
  own.router.coarse_top_k = 1;
  EXPECT_FALSE(build_graph(model_of(own), {}, step(Phase::prefill)).not_executed.empty());
}

TEST(RouterNetwork, IsReadFromAFileAndRefusedWhereItLacksItsPart_C6) {
  const auto text = [](const std::string& router) {
    return R"({"moecast_architecture":1,"hidden":64,"decoder":[{"blocks":[{"type":"moe","experts":[{"count":8,)"
           R"("expert":{"width":32}}],"router":{"top_k":2,)" +
           router + "}}]}]}";
  };
  const Architecture read = load_architecture_text(
      text(R"("network":"attention","attention":{"heads":4,"kv_heads":2,"head_dim":16})"), "model.json");
  const auto& moe = std::get<MoeBlock>(read.decoder.front().blocks.front());
  EXPECT_EQ(moe.router.attention, attention());
  for (const char* wrong :
       {R"("network":"attention")", R"("network":"own-cost")", R"("own_cost":{"flops_per_token":5})",
        R"("network":"attention","attention":{"heads":4,"kv_heads":3,"head_dim":16})"}) {
    EXPECT_THROW(load_architecture_text(text(wrong), "model.json"), InputError) << wrong;
  }
}

}  // namespace
}  // namespace moecast
