#include <gtest/gtest.h>

#include "models/architecture/accounting.h"
#include "models/plan/graph.h"

namespace moecast {
namespace {

AttentionBlock grouped() {
  AttentionBlock a;
  a.heads = 8;
  a.kv_heads = 2;
  a.head_dim = 16;
  return a;
}

Architecture decoder_of(const Block& block) {
  Architecture a;
  a.name = "one";
  a.hidden = 128;
  a.vocabulary = 100;
  a.decoder = {{{block}}};
  return a;
}

Workload step(Phase phase, std::int64_t batch, std::int64_t query, std::int64_t context) {
  Workload w;
  w.phase = phase;
  w.batch = batch;
  w.prompt = query;
  w.context = context;
  return w;
}

/// Sum over the operators whose name ends like this.
double flops_of(const OperatorGraph& graph, const std::string& end) {
  double flops = 0;
  for (const Operator& op : graph.operators) {
    if (op.name.ends_with(end)) flops += op.flops.value() * op.count;
  }
  return flops;
}

const Operator& named(const OperatorGraph& graph, const std::string& end) {
  for (const Operator& op : graph.operators) {
    if (op.name.ends_with(end)) return op;
  }
  throw std::runtime_error("no operator " + end);
}

/// Keys seen by every new token, one after the other.
double counted(std::int64_t query, std::int64_t context, std::int64_t window, bool chunked) {
  double keys = 0;
  for (std::int64_t p = context; p < context + query; ++p) {
    std::int64_t seen = p + 1;
    if (window > 0) seen = chunked ? p % window + 1 : std::min(seen, window);
    keys += static_cast<double>(seen);
  }
  return keys;
}

TEST(AttentionGraph, CountsTheKeysThatWindowsAndChunksShow) {
  for (const std::int64_t window : {0, 3, 16, 1000}) {
    for (const std::int64_t query : {1, 2, 16, 37}) {
      for (const std::int64_t context : {0, 5, 40}) {
        for (const bool chunked : {false, true}) {
          AttentionBlock a = grouped();
          a.window = window;
          if (chunked && window > 0) a.kind = AttentionKind::chunked;
          const auto graph = build_graph(decoder_of(a), {}, step(Phase::prefill, 2, query, context));
          const double expected = 4.0 * 2 * counted(query, context, window, chunked) * 8 * 16;
          EXPECT_DOUBLE_EQ(flops_of(graph, ".core"), expected) << window << " " << query << " " << context;
        }
      }
    }
  }
}

TEST(AttentionGraph, ChunksOfAPromptAddUpToThePrompt_C22) {
  // Pairs of query and key: the sum over chunks of c (c + 1) / 2 + c p is P (P + 1) / 2.
  const double whole = flops_of(build_graph(decoder_of(grouped()), {}, step(Phase::prefill, 1, 96, 0)), ".core");
  double chunks = 0;
  for (std::int64_t prefix = 0; prefix < 96; prefix += 32) {
    chunks += flops_of(build_graph(decoder_of(grouped()), {}, step(Phase::prefill, 1, 32, prefix)), ".core");
  }
  EXPECT_DOUBLE_EQ(chunks, whole);
  // Beside sequences that decode a prompt has its own prefix.
  Workload mixed = step(Phase::mixed, 1, 32, 7);
  mixed.prefill_batch = 1;
  const double first = flops_of(build_graph(decoder_of(grouped()), {}, mixed), ".core");
  mixed.prefix = 64;
  const double later = flops_of(build_graph(decoder_of(grouped()), {}, mixed), ".core");
  EXPECT_DOUBLE_EQ(later - first, 4.0 * 32 * 64 * 8 * 16);
}

TEST(AttentionGraph, PlainCausalStepsAreWhatTheProfilerMeasures) {
  EXPECT_EQ(named(build_graph(decoder_of(grouped()), {}, step(Phase::prefill, 2, 64, 0)), ".core").shape.visible, 0);
  EXPECT_EQ(named(build_graph(decoder_of(grouped()), {}, step(Phase::decode, 2, 1, 50)), ".core").shape.visible, 0);
  AttentionBlock narrow = grouped();
  narrow.window = 8;
  EXPECT_EQ(named(build_graph(decoder_of(narrow), {}, step(Phase::decode, 2, 1, 50)), ".core").shape.visible, 0);
}

TEST(AttentionGraph, EncodersSeeEveryToken) {
  AttentionBlock a = grouped();
  a.causal = false;
  Architecture encoder = decoder_of(a);
  std::swap(encoder.encoder, encoder.decoder);
  const auto graph = build_graph(encoder, {}, step(Phase::encode, 3, 10, 0));
  EXPECT_DOUBLE_EQ(flops_of(graph, ".core"), 4.0 * 3 * 10 * 10 * 8 * 16);
  EXPECT_EQ(named(graph, ".core").shape.visible, 100);
}

TEST(AttentionGraph, LatentAttentionComputesWhatItsMatricesAre) {
  AttentionBlock a;
  a.kind = AttentionKind::latent;
  a.heads = a.kv_heads = 4;
  a.head_dim = 24;
  a.latent = LatentSpec{32, 20, 16, 8, 16};
  const Architecture model = decoder_of(a);
  const double norms = 32 + 20;  // vectors, no arithmetic of matrices
  const double matrices = block_parameters(model.decoder[0].blocks[0], 128).total - norms;
  const auto prefill = build_graph(model, {}, step(Phase::prefill, 2, 5, 0));
  double projections = 0;
  for (const Operator& op : prefill.operators) {
    if (op.stage == "attention" && !op.name.ends_with(".core")) projections += op.flops.value();
  }
  EXPECT_DOUBLE_EQ(projections, 2 * 10 * matrices);
  EXPECT_DOUBLE_EQ(flops_of(prefill, ".core"), 2.0 * 2 * 15 * 4 * (24 + 16));
  // Absorbed: the same matrices, the cached row of 28 columns is key and value of all heads.
  const auto decode = build_graph(model, {}, step(Phase::decode, 2, 1, 9));
  projections = 0;
  for (const Operator& op : decode.operators) {
    if (op.stage == "attention" && !op.name.ends_with(".core")) projections += op.flops.value();
  }
  EXPECT_DOUBLE_EQ(projections, 2 * 2 * matrices);
  const Operator& core = named(decode, ".core");
  EXPECT_EQ(core.shape.kv_heads, 1);
  EXPECT_DOUBLE_EQ(core.flops.value(), 2.0 * 2 * 10 * 4 * (28 + 20));
  EXPECT_DOUBLE_EQ(core.activation_bytes.value(), 2.0 * 2 * 10 * 28 + 2 * 4 * (28 * 2 + 20 * 4));
}

TEST(AttentionGraph, CrossAttentionProjectsTheSourceOnce) {
  AttentionBlock a = grouped();
  a.kind = AttentionKind::cross;
  a.causal = false;
  Architecture model = decoder_of(a);
  model.encoder = {{{grouped()}}};
  Workload w = step(Phase::prefill, 2, 4, 0);
  w.source = 30;
  const auto prefill = build_graph(model, {}, w);
  EXPECT_EQ(named(prefill, "encoder.0.attention.qkv").shape.m, 60);
  EXPECT_EQ(named(prefill, "layers.0.attention.kv").shape.m, 60);
  EXPECT_EQ(named(prefill, "layers.0.attention.q").shape.m, 8);
  EXPECT_DOUBLE_EQ(flops_of(prefill, "layers.0.attention.core"), 4.0 * 2 * 4 * 30 * 8 * 16);
  w.phase = Phase::decode;
  const auto decode = build_graph(model, {}, w);
  EXPECT_THROW(named(decode, ".attention.kv"), std::runtime_error);
  EXPECT_THROW(named(decode, "encoder.0.attention.qkv"), std::runtime_error);
  EXPECT_DOUBLE_EQ(flops_of(decode, ".core"), 4.0 * 2 * 30 * 8 * 16);
}

TEST(AttentionGraph, AnIndexerScoresAllKeysAndAttendsToSome) {
  AttentionBlock a = grouped();
  a.indexer = IndexerSpec{4, 16, 20};
  const auto graph = build_graph(decoder_of(a), {}, step(Phase::decode, 3, 1, 99));
  EXPECT_DOUBLE_EQ(flops_of(graph, ".scores"), 2.0 * 3 * 100 * 4 * 16);
  EXPECT_DOUBLE_EQ(flops_of(graph, ".core"), 4.0 * 3 * 20 * 8 * 16);
  // The first 20 tokens of a prompt see what there is: 1 + 2 + .. + 20, then 20 each.
  const auto prompt = build_graph(decoder_of(a), {}, step(Phase::prefill, 2, 30, 0));
  EXPECT_DOUBLE_EQ(flops_of(prompt, ".core"), 4.0 * 2 * (210 + 10 * 20) * 8 * 16);
}

TEST(AttentionGraph, StateSpaceAndDeltaNetsKeepAStateInsteadOfACache) {
  StateSpaceBlock mamba;
  mamba.inner_width = 256;
  mamba.state_size = 16;
  mamba.heads = 4;
  const auto graph = build_graph(decoder_of(mamba), {}, step(Phase::decode, 3, 1, 5000));
  EXPECT_EQ(named(graph, ".in").shape.n, 2 * 256 + 2 * 16 + 4);
  EXPECT_DOUBLE_EQ(named(graph, ".state").flops.value(), 6.0 * 3 * 256 * 16);
  EXPECT_EQ(named(graph, ".conv").kind, OperatorKind::convolution);
  EXPECT_TRUE(graph.not_executed.empty());
}

TEST(AttentionGraph, RecurrentStepsFollowOneAnother) {
  RecurrentBlock lstm;
  lstm.width = 64;
  lstm.projection = 32;
  const Architecture model = decoder_of(lstm);
  const auto graph = build_graph(model, {}, step(Phase::prefill, 2, 7, 0));
  EXPECT_EQ(named(graph, ".step").count, 7);
  EXPECT_EQ(named(graph, ".step").shape.m, 2);
  const double biases = 4 * 64;
  EXPECT_DOUBLE_EQ(flops_of(graph, ".in") + flops_of(graph, ".step") + flops_of(graph, ".project"),
                   2 * 14 * (block_parameters(model.decoder[0].blocks[0], 128).total - biases));
}

TEST(AttentionGraph, DataParallelRanksShareTheTokensNotTheExperts) {
  MoeBlock moe;
  ExpertSpec spec;
  spec.width = 32;
  moe.experts = {{4, spec, ""}};
  moe.router.top_k = 2;
  Deployment two;
  two.dp = two.ep = 2;
  Workload w = step(Phase::decode, 8, 1, 10);
  w.load.kind = LoadKind::uniform;
  const auto graph = build_graph(decoder_of(moe), two, w);
  EXPECT_EQ(named(graph, ".router").shape.m, 4);
  double rows = 0;
  for (const RowGroup& group : named(graph, ".gate_up").rows) rows += group.rows * group.experts;
  EXPECT_NEAR(rows, 8, 1e-9);  // 16 choices on two ranks
}

}  // namespace
}  // namespace moecast
