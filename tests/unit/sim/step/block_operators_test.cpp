// Operators of blocks that no table or few tables hold: shapes of a rank, bytes and operations worked by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/plan/engine.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/step_model.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

const KernelCalibration& kernels(const std::string& machine) {
  static std::map<std::string, KernelCalibration> known;
  auto found = known.find(machine);
  if (found == known.end()) {
    found = known.emplace(machine, read_kernel_calibration(kRoot + "/hwprofiles/" + machine, machine)).first;
  }
  return found->second;
}

Architecture of_block(const Block& block, std::int64_t hidden = 1024) {
  Architecture a;
  a.name = "one";
  a.hidden = hidden;
  a.decoder = {{{block}}};
  return a;
}

StepOperators operators_of(const Architecture& a, int tp = 1, const std::string& machine = "h200-sxm") {
  Deployment d;
  d.tp = tp;
  d.backend = "vllm";
  return make_step_operators(a, d, read_engine(kRoot + "/models/plan/engines", "vllm"), kernels(machine));
}

const StepOperator& named(const StepOperators& all, const std::string& name) {
  for (const StepOperator& op : all.operators) {
    if (op.name == name) return op;
  }
  throw std::runtime_error("no operator " + name);
}

StepShape generating(double sequences, double kv) {
  StepShape shape;
  shape.rows = shape.decodes = shape.expert_rows = sequences;
  shape.decode_kv = kv;
  return shape;
}

StepShape prompts(double count, double fresh) {
  StepShape shape;
  shape.prompts = count;
  shape.rows = shape.context = shape.expert_rows = count * fresh;
  return shape;
}

double gemm_flops(double rows, double n, double k) { return 2 * rows * n * k; }

AttentionBlock sparse_latent() {
  AttentionBlock block;
  block.kind = AttentionKind::sparse_latent;
  block.heads = block.kv_heads = 8;
  block.head_dim = 96;
  block.latent = LatentSpec{128, 256, 64, 32, 64};
  block.indexer = IndexerSpec{4, 32, 100};
  return block;
}

TEST(BlockOperators, SparseLatentAttentionScoresAllAndReadsTheBest) {
  const StepOperators whole = operators_of(of_block(sparse_latent()));
  EXPECT_TRUE(whole.not_executed.empty());
  const StepShape shape = generating(3, 500);
  // Indexer: 4 heads of 32 out of the query's low rank; a key and 4 weights of each token.
  EXPECT_DOUBLE_EQ(named(whole, "attention.indexer.q").work(shape).flops, gemm_flops(3, 4 * 32, 128));
  EXPECT_DOUBLE_EQ(named(whole, "attention.indexer.k").work(shape).flops, gemm_flops(3, 32 + 4, 1024));
  const StepWork scores = named(whole, "attention.indexer.scores.decode").work(shape);
  EXPECT_DOUBLE_EQ(scores.flops, 3 * 500 * 2 * 4 * 32);
  EXPECT_DOUBLE_EQ(scores.bytes, 3 * (500 * (32 * 2 + 4) + 4 * 32 * 2));  // keys, scores, and the indexer's queries
  EXPECT_DOUBLE_EQ(named(whole, "attention.indexer.choice.decode").work(shape).bytes, 3 * 500 * 4);
  EXPECT_EQ(named(whole, "attention.indexer.scores.prefill").seconds(shape), 0);
  // Core, absorbed: 100 of 500 rows of 256 + 32 elements, each with 8 heads over 288 and 256.
  const StepWork core = named(whole, "attention.decode").work(shape);
  EXPECT_DOUBLE_EQ(core.bytes, 3 * (100 * 288 * 2 + 8 * (288 + 256) * 2));  // and queries and results of 8 heads
  EXPECT_DOUBLE_EQ(core.flops, 3 * 100 * 2 * 8 * (288 + 256));
  EXPECT_DOUBLE_EQ(named(whole, "attention.decode").work(generating(3, 9000)).bytes, core.bytes);
  // A prompt of 300: 100 * 101 / 2 pairs, then 100 each of 200.
  EXPECT_DOUBLE_EQ(named(whole, "attention.prefill").work(prompts(2, 300)).flops,
                   2 * (5050 + 200 * 100) * 2 * 8 * (288 + 256));
  // Heads are split, the indexer is not.
  const StepOperators half = operators_of(of_block(sparse_latent()), 2);
  EXPECT_DOUBLE_EQ(named(half, "attention.decode").work(shape).flops, core.flops / 2);
  EXPECT_DOUBLE_EQ(named(half, "attention.decode").work(shape).bytes, 3 * (100 * 288 * 2 + 4 * (288 + 256) * 2));
  EXPECT_DOUBLE_EQ(named(half, "attention.indexer.scores.decode").work(shape).flops, scores.flops);
}

TEST(BlockOperators, LowRankProjectionsAndACompressedCache) {
  AttentionBlock block;
  block.heads = 8;
  block.kv_heads = 1;
  block.head_dim = 128;
  block.shared_kv = true;
  block.window = 64;
  block.q_rank = 256;
  block.out_rank = 192;
  block.out_groups = 4;
  block.kv_compression = 16;
  const StepOperators half = operators_of(of_block(block), 2);
  const StepShape shape = generating(1, 1600);
  EXPECT_DOUBLE_EQ(named(half, "attention.qkv_a").work(shape).flops, gemm_flops(1, 256 + 128, 1024));
  EXPECT_DOUBLE_EQ(named(half, "attention.q_b").work(shape).flops, gemm_flops(1, 4 * 128, 256));
  // Two groups of two heads a rank.
  EXPECT_EQ(named(half, "attention.out_a").count, 2);
  EXPECT_DOUBLE_EQ(named(half, "attention.out_a").work(shape).flops, gemm_flops(1, 192, 2 * 128));
  EXPECT_DOUBLE_EQ(named(half, "attention.out_b").work(shape).flops, gemm_flops(1, 1024, 2 * 192));
  EXPECT_DOUBLE_EQ(named(half, "attention.decode").work(shape).bytes,
                   (1600.0 / 16 + 64) * 128 * 2 + 4 * (128 + 128) * 2);
}

TEST(BlockOperators, RoutersCostTheirNetworkOrAreRefused_C6) {
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = 512;
  moe.experts = {{8, expert, ""}};
  moe.router.top_k = 2;
  const StepShape shape = generating(16, 100);
  const auto router_flops = [&](const MoeBlock& block) {
    double flops = 0;
    for (const StepOperator& op : operators_of(of_block(block)).operators) {
      if (op.name == "router") flops += op.work(shape).flops;
    }
    return flops;
  };
  EXPECT_DOUBLE_EQ(router_flops(moe), gemm_flops(16, 8, 1024));
  MoeBlock mlp = moe;
  mlp.router.network = RouterNetwork::mlp;
  mlp.router.mlp_widths = {256};
  EXPECT_DOUBLE_EQ(router_flops(mlp), gemm_flops(16, 256, 1024) + gemm_flops(16, 8, 256));
  MoeBlock own = moe;
  own.router.network = RouterNetwork::own_cost;
  own.router.own_cost = OwnCostBlock{"policy", 1000, 5e4, 300};
  EXPECT_DOUBLE_EQ(router_flops(own), 16 * 5e4);
  EXPECT_GT(named(operators_of(of_block(own)), "router").spread, 0) << "stated, not measured";
  MoeBlock seen = moe;
  seen.router.network = RouterNetwork::attention;
  seen.router.attention = sparse_latent();
  EXPECT_THAT(operators_of(of_block(seen)).not_executed, testing::ElementsAre(testing::HasSubstr("router")));
}

TEST(BlockOperators, Mamba2KeepsAState_C17) {
  StateSpaceBlock block;
  block.inner_width = 512;
  block.state_size = 64;
  block.heads = 8;
  block.groups = 2;
  block.conv_size = 4;
  const StepOperators half = operators_of(of_block(block), 2);
  EXPECT_TRUE(half.not_executed.empty());
  const StepShape shape = generating(5, 10000);
  // A rank: 256 channels twice (input, gate), B and C of one group, 4 time steps.
  EXPECT_DOUBLE_EQ(named(half, "state_space.in").work(shape).flops, gemm_flops(5, 2 * 256 + 2 * 64 + 4, 1024));
  EXPECT_DOUBLE_EQ(named(half, "state_space.out").work(shape).flops, gemm_flops(5, 1024, 256));
  const StepWork state = named(half, "state_space.state.decode").work(shape);
  EXPECT_DOUBLE_EQ(state.flops, 6 * 5 * 256 * 64);
  EXPECT_DOUBLE_EQ(state.bytes, 5 * (8 * 256 * 64 + 2 * (3 * 256 + 2 * 64 + 4)));
  const StepWork conv = named(half, "state_space.conv.decode").work(shape);
  EXPECT_DOUBLE_EQ(conv.flops, 2 * 5 * (256 + 128) * 4);
  EXPECT_DOUBLE_EQ(conv.bytes, 5 * (2 * 2 * (256 + 128) * 3 + 2 * 2 * (256 + 128)));
  // Prompts: the state twice a sequence, the rest a token. Sequences that generate ride along.
  StepShape mixed = prompts(2, 100);
  mixed.decodes = 3;
  const StepWork scan = named(half, "state_space.state.prefill").work(mixed);
  EXPECT_DOUBLE_EQ(scan.flops, 6 * 203 * 256 * 64);
  EXPECT_DOUBLE_EQ(scan.bytes, 5 * 8 * 256 * 64 + 203 * 2 * (3 * 256 + 2 * 64 + 4));
  EXPECT_EQ(named(half, "state_space.state.decode").seconds(mixed), 0);
  // The context is nothing to a state.
  EXPECT_EQ(named(half, "state_space.state.decode").seconds(generating(5, 10)),
            named(half, "state_space.state.decode").seconds(shape));
  EXPECT_THROW(operators_of(of_block(block), 16), InputError);  // 8 heads
}

TEST(BlockOperators, MambaSumsItsTimeStepsOverRanks) {
  StateSpaceBlock block;
  block.version = 1;
  block.inner_width = 512;
  block.state_size = 16;
  block.dt_rank = 32;
  const StepOperators whole = operators_of(of_block(block));
  EXPECT_THROW(named(whole, "state_space.all_reduce"), std::runtime_error);
  const StepOperators half = operators_of(of_block(block), 2);
  const StepShape shape = generating(4, 100);
  EXPECT_DOUBLE_EQ(named(half, "state_space.x").work(shape).flops, gemm_flops(4, 32 + 2 * 16, 256));
  EXPECT_DOUBLE_EQ(named(half, "state_space.dt").work(shape).flops, gemm_flops(4, 256, 32));
  EXPECT_GT(named(half, "state_space.all_reduce").seconds(shape), 0);
  EXPECT_EQ(half.collectives, 1 + 1 + 1);  // of the block, of its time steps, of the embedding
}

AttentionBlock linear(AttentionKind kind, std::int64_t conv) {
  AttentionBlock block;
  block.kind = kind;
  block.heads = block.kv_heads = 8;
  block.head_dim = 64;
  block.linear = LinearAttentionSpec{8, 8, 64, 32, conv};
  return block;
}

TEST(BlockOperators, LightningAndKimiAttentionKeepAState_C17) {
  const StepShape shape = generating(3, 7000);
  const StepOperators lightning = operators_of(of_block(linear(AttentionKind::lightning, 0)), 2);
  EXPECT_TRUE(lightning.not_executed.empty());
  EXPECT_DOUBLE_EQ(named(lightning, "lightning.in").work(shape).flops, gemm_flops(3, 2 * 4 * 64 + 2 * 4 * 32, 1024));
  EXPECT_DOUBLE_EQ(named(lightning, "lightning.state.decode").work(shape).flops, 6 * 3 * 4 * 64 * 32);
  EXPECT_THROW(named(lightning, "lightning.conv.decode"), std::runtime_error);
  const StepOperators kimi = operators_of(of_block(linear(AttentionKind::kimi_delta, 4)), 2);
  EXPECT_DOUBLE_EQ(named(kimi, "delta_net.decay_beta").work(shape).flops, gemm_flops(3, 64 + 4, 1024));
  EXPECT_DOUBLE_EQ(named(kimi, "delta_net.decay").work(shape).flops, gemm_flops(3, 4 * 64, 64));
  EXPECT_DOUBLE_EQ(named(kimi, "delta_net.conv.decode").work(shape).flops, 2 * 3 * (2 * 4 * 64 + 4 * 32) * 4);
}

TEST(BlockOperators, GatedDeltaNetsAreMeasuredOnB300AndPhysicsElsewhere) {
  AttentionBlock block = linear(AttentionKind::gated_delta_net, 4);
  block.linear = LinearAttentionSpec{16, 32, 128, 128, 4};
  const StepShape shape = generating(16, 100);
  const StepOperators measured = operators_of(of_block(block, 2048), 1, "b300-sxm");
  EXPECT_THAT(named(measured, "delta_net.decode").kernel, testing::HasSubstr("gdn"));
  EXPECT_EQ(named(measured, "delta_net.decode").spread, 0);
  const StepOperators physics = operators_of(of_block(block, 2048));
  EXPECT_EQ(named(physics, "delta_net.state.decode").kernel, "physics");
  EXPECT_GT(named(physics, "delta_net.state.decode").spread, 0);
  EXPECT_THAT(physics.notes, testing::Contains(testing::HasSubstr("physics only")));
  // Both read and write the same state.
  EXPECT_DOUBLE_EQ(named(physics, "delta_net.state.decode").work(shape).bytes,
                   named(measured, "delta_net.decode").work(shape).bytes);
}

TEST(BlockOperators, RecurrentLayersGoOnTokenByToken_D1) {
  RecurrentBlock block;
  block.width = 256;
  block.projection = 128;
  const StepOperators all = operators_of(of_block(block));
  const StepShape one = generating(8, 1);
  const StepShape prompt = prompts(8, 50);
  EXPECT_DOUBLE_EQ(named(all, "recurrent.in").work(prompt).flops, gemm_flops(400, 4 * 256, 1024));
  EXPECT_DOUBLE_EQ(named(all, "recurrent.step").work(prompt).flops, gemm_flops(400, 4 * 256, 128));
  // Weights are read again in every one of 50 steps.
  EXPECT_DOUBLE_EQ(named(all, "recurrent.step").work(prompt).bytes, 50 * 2 * 4 * 256 * 128 + 400 * 2 * (4 * 256 + 128));
  EXPECT_NEAR(named(all, "recurrent.step").seconds(prompt), 50 * named(all, "recurrent.step").seconds(one), 1e-9);
  EXPECT_NEAR(named(all, "recurrent.gates").seconds(prompt), 50 * named(all, "recurrent.gates").seconds(one), 1e-9);
  EXPECT_DOUBLE_EQ(named(all, "recurrent.project").work(one).flops, gemm_flops(8, 128, 256));
  EXPECT_THROW(operators_of(of_block(block), 2), InputError);
}

TEST(BlockOperators, ConvolutionsAndStatedWork) {
  ConvolutionBlock stem;
  stem.in_channels = 16;
  stem.out_channels = 64;
  stem.kernel_height = stem.kernel_width = 3;
  const StepShape shape = prompts(1, 196);
  EXPECT_DOUBLE_EQ(named(operators_of(of_block(stem)), "convolution").work(shape).flops, gemm_flops(196, 64, 16 * 9));
  stem.in_channels = stem.out_channels = stem.groups = 64;
  EXPECT_DOUBLE_EQ(named(operators_of(of_block(stem)), "convolution").work(shape).flops, 2.0 * 196 * 64 * 9);
  const OwnCostBlock own{"fourier", 1000, 2e6, 3e4};
  const StepWork stated = named(operators_of(of_block(own)), "fourier").work(shape);
  EXPECT_DOUBLE_EQ(stated.flops, 196 * 2e6);
  EXPECT_DOUBLE_EQ(stated.bytes, 1000 * 2 + 196 * 3e4);
}

/// ln of the upper end over the prediction.
double width(const Prediction& p) { return std::log(*p.high / *p.latency); }

TEST(BlockOperators, PhysicsWidensTheIntervalByItsShareOfTheStep) {
  const auto h200 = load_gpu_predictor(kRoot + "/hwprofiles/h200-sxm", kRoot + "/models/plan/engines");
  const Architecture model = load_zoo(kRoot + "/models/zoo", "nemotron-3-nano-30b-a3b");
  Workload w;
  w.phase = Phase::decode;
  w.context = 1000;
  w.batch = 128;
  const Prediction p = h200->predict(model, {}, w);
  ASSERT_EQ(p.status, Status::ok) << p.reason;
  double assumed = 0;
  for (const OperatorCost& op : p.operators) {
    if (op.name == "state_space.state.decode") assumed += 0.27 * op.latency.value();
    if (op.name == "state_space.conv.decode") assumed += 0.48 * op.latency.value();
  }
  EXPECT_GT(assumed, 0);
  const double unseen = read_engine(kRoot + "/models/plan/engines", "vllm").tpot_interval[1];
  // The router is narrower than every linear layer of the tables, and a small part of a step.
  constexpr double kRouter = 0.002;
  EXPECT_NEAR(width(p), unseen + assumed / p.latency->value(), kRouter);
  EXPECT_THAT(p.warnings, testing::Contains(testing::HasSubstr("physics only")));
  // Every kernel of a plain model was measured.
  const Prediction plain = h200->predict(load_zoo(kRoot + "/models/zoo", "qwen3-30b-a3b"), {}, w);
  EXPECT_NEAR(width(plain), unseen, kRouter);
}

}  // namespace
}  // namespace moecast
