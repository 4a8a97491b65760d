// What a step says of itself: which links it crosses, how far it is from what was measured, what no kernel is known of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/architecture/zoo.h"
#include "models/plan/engine.h"
#include "sim/step/collective_cost.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/placed_experts.h"
#include "sim/step/step_model.h"

namespace moecast {
namespace {

using testing::Contains;
using testing::HasSubstr;

const std::string kRoot = MOECAST_SOURCE_DIR;

Architecture zoo(const std::string& name) { return load_zoo(kRoot + "/models/zoo", name); }

std::unique_ptr<Predictor> machine(const std::string& name) {
  return load_gpu_predictor(kRoot + "/hwprofiles/" + name, kRoot + "/models/plan/engines");
}

KernelCalibration kernels(const std::string& name) {
  return read_kernel_calibration(kRoot + "/hwprofiles/" + name, name);
}

Workload decode(std::int64_t batch, std::int64_t context = 1024) {
  Workload w;
  w.batch = batch;
  w.context = context;
  return w;
}

Deployment vllm(int tp) {
  Deployment d;
  d.tp = tp;
  d.backend = "vllm";
  return d;
}

const OperatorCost& named(const Prediction& answer, const std::string& name) {
  for (const OperatorCost& op : answer.operators) {
    if (op.name == name) return op;
  }
  throw std::runtime_error("no operator " + name);
}

/// One MoE layer of so many experts on one GPU.
Prediction layer_on(const Predictor& predictor, std::int64_t hidden, std::int64_t width, std::int64_t experts) {
  MoeBlock block;
  ExpertGroup group;
  group.count = experts;
  group.expert.width = width;
  block.experts = {group};
  block.router.top_k = 2;
  Architecture a;
  a.name = "layer";
  a.hidden = hidden;
  a.decoder = {{{block}}};
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = 64;
  return predictor.predict(a, vllm(1), w, {});
}

TEST(TensorParallelism, ReducesOverNodesByTheirLaw) {
  const auto h200 = machine("h200-sxm");
  const Architecture model = zoo("qwen3-235b-a22b");
  const OperatorCost inside = named(h200->predict(model, vllm(4), decode(32)), "all_reduce");
  const OperatorCost across = named(h200->predict(model, vllm(16), decode(32)), "all_reduce");
  EXPECT_THAT(inside.stage, HasSubstr("custom_allreduce"));
  EXPECT_THAT(across.stage, HasSubstr("nccl"));
  const double rows = 32.0 * 4096;
  EXPECT_NEAR(across.latency.value() / across.count,
              collective_cost(kernels("h200-sxm"), "all_reduce", 16, 2).seconds(rows), 1e-9);
  EXPECT_GT(across.latency.value(), 2 * inside.latency.value());
}

TEST(TensorParallelism, AnAllReduceOfAnotherFrameworkHasToBeMeasured) {
  const KernelCalibration b200 = kernels("b200-sxm");
  EXPECT_TRUE(has_all_reduce(b200, "trtllm", 8));
  EXPECT_TRUE(has_all_reduce(b200, "vllm", 8));
  EXPECT_FALSE(has_all_reduce(b200, "trtlm", 8));
  const double sixteen_rows = 16.0 * 8192;
  EXPECT_LT(engine_all_reduce_cost(b200, "trtllm", "", 8).seconds(sixteen_rows),
            0.5 * engine_all_reduce_cost(b200, "vllm", "", 8).seconds(sixteen_rows));
}

TEST(TensorParallelism, TheSamplerGathersAllLogitsOfASequence) {
  const auto h200 = machine("h200-sxm");
  const Architecture model = zoo("qwen3-30b-a3b");
  EXPECT_EQ(model.vocabulary % 4, 0);
  const OperatorCost gather = named(h200->predict(model, vllm(4), decode(256)), "logits.all_gather");
  EXPECT_EQ(gather.count, 1);
  const double elements = 256.0 * static_cast<double>(model.vocabulary);
  EXPECT_NEAR(gather.latency.value(), collective_cost(kernels("h200-sxm"), "all_gather", 4, 1).seconds(elements), 1e-9);
  for (const OperatorCost& op : h200->predict(model, vllm(1), decode(256)).operators) {
    EXPECT_NE(op.name, "logits.all_gather");
  }
  // A vocabulary that ranks do not divide is padded to a multiple of 64 that they do.
  EXPECT_EQ(padded_vocabulary(49155, 1), 49155);
  EXPECT_EQ(padded_vocabulary(49155, 2), 49216);
  EXPECT_EQ(padded_vocabulary(151936, 8), 151936);
  EXPECT_TRUE(h200->predict(zoo("granite-3.1-3b-a800m"), vllm(2), decode(8)).latency);
}

TEST(Nodes, AreAsLargeAsTheLinksOfTheMachineJoin) {
  EXPECT_EQ(kernels("h200-sxm").device.node_devices, 8);
  EXPECT_EQ(kernels("gb200").device.node_devices, 72);
  Deployment d = vllm(1);
  d.ep = d.dp = 64;
  const Prediction rack = machine("gb200")->predict(zoo("qwen3-235b-a22b"), d, decode(1024));
  for (const std::string& warning : rack.warnings) EXPECT_THAT(warning, testing::Not(HasSubstr("nodes of")));
  const Prediction hosts = machine("b200-sxm")->predict(zoo("qwen3-235b-a22b"), d, decode(1024));
  EXPECT_THAT(hosts.warnings, Contains(HasSubstr("nodes of 8 devices")));
}

TEST(Doubt, AShapeFarFromAllThatWereMeasuredSaysSoAndWidens) {
  const auto h200 = machine("h200-sxm");
  const Prediction near = layer_on(*h200, 2048, 768, 128);
  const Prediction far = layer_on(*h200, 20480, 33000, 7);
  EXPECT_EQ(near.origin, Origin::fitted);
  EXPECT_EQ(far.origin, Origin::extrapolated);
  const auto width = [](const Prediction& p) { return std::log(p.high->value() / p.low->value()); };
  EXPECT_GT(width(far), 1.3 * width(near));
  EXPECT_THAT(far.warnings, Contains(HasSubstr("experts: far from every shape that was measured")));
}

TEST(Doubt, OfOperatorsThatTakeLongTheWeakestOriginIsSaid) {
  const auto h200 = machine("h200-sxm");
  EXPECT_EQ(h200->predict(zoo("qwen3-30b-a3b"), vllm(1), decode(32)).origin, Origin::fitted);
  EXPECT_EQ(h200->predict(zoo("deepseek-v3"), vllm(8), decode(32)).origin, Origin::assumed);  // latent attention
}

TEST(Physics, AnswersWhereNoKernelIsKnownAndSaysHowUnsure) {
  const Prediction answer = machine("l40s")->predict(zoo("qwen3-30b-a3b"), vllm(2), decode(8));
  ASSERT_TRUE(answer.latency);
  EXPECT_EQ(named(answer, "experts").stage, "physics");
  EXPECT_EQ(answer.origin, Origin::assumed);
  EXPECT_THAT(answer.warnings, Contains(HasSubstr("physics only, no kernel was measured: experts")));
  // 40 experts' worth of weights cannot stream in less than the datasheet allows.
  const OperatorCost experts = named(answer, "experts");
  EXPECT_GT(experts.latency.value(), experts.bytes->value() / 864e9);
}

TEST(LatentAttention, PromptsExpandTheCachedRowsBeforeThem) {
  const auto h200 = machine("h200-sxm");
  const Architecture model = zoo("deepseek-v3");
  const auto absorbed = [&](std::int64_t prefix) {
    Workload w;
    w.phase = Phase::prefill;
    w.prompt = 2048;
    w.context = prefix;
    double flops = 0;  // layers with experts, and those without
    for (const OperatorCost& op : h200->predict(model, vllm(8), w).operators) {
      if (op.name == "attention.absorbed") flops += op.flops->value();
    }
    return flops;
  };
  // 2 x rows x rank of the latent x heads of a rank x (nope + value), 61 layers.
  EXPECT_NEAR(absorbed(0), 2.0 * 2048 * 512 * 16 * 256 * 61, 1e6);
  EXPECT_NEAR(absorbed(32768), 2.0 * (2048 + 32768) * 512 * 16 * 256 * 61, 1e7);
}

TEST(GroupLimitedRouting, LoadsTheFullestRankMore) {
  ExpertLoad load;
  load.kind = LoadKind::log_normal;
  load.parameter = 1;
  const PlacedExperts free(256, 8, 16, 0, load);
  const PlacedExperts limited(256, 8, 16, 0, load, {8, 4});
  EXPECT_GT(limited.at(4096).rows, 1.03 * free.at(4096).rows);
  const auto h200 = machine("h200-sxm");
  Architecture model = zoo("deepseek-v3");
  Deployment d = vllm(1);
  d.ep = d.dp = 16;
  Workload w;
  w.phase = Phase::prefill;
  w.batch = 16;
  w.prompt = 2048;
  w.load = load;
  const double grouped = named(h200->predict(model, d, w), "experts").latency.value();
  for (Layer& layer : model.decoder) {
    for (Block& block : layer.blocks) {
      if (auto* moe = std::get_if<MoeBlock>(&block)) moe->router.groups = moe->router.top_groups = 1;
    }
  }
  EXPECT_GT(grouped, 1.02 * named(h200->predict(model, d, w), "experts").latency.value());
}

TEST(StepHonesty, AKernelOfFewerBytesThatIsSlowerIsSuspect) {
  const auto warned = [](const char* hw, const char* backend, DType dtype) {
    Deployment d = vllm(1);
    d.backend = backend;
    d.dtype = dtype;
    const Prediction answer = machine(hw)->predict(zoo("mixtral-8x7b"), d, decode(8));
    return std::ranges::any_of(answer.warnings, [](const std::string& text) {
      return text.find("times as long as that in bf16") != std::string::npos;
    });
  };
  EXPECT_TRUE(warned("h200-sxm", "vllm-0.24.0", DType::fp8)) << "three times as long in the table";
  EXPECT_FALSE(warned("h200-sxm", "vllm-0.24.0", DType::fp8_block));
  EXPECT_FALSE(warned("h200-sxm", "vllm-0.24.0", DType::bf16));
  EXPECT_FALSE(warned("h200-sxm", "trtllm", DType::fp8));
  EXPECT_FALSE(warned("b200-sxm", "vllm-0.24.0", DType::fp8));
}

bool warns(const Prediction& answer, const std::string& text) {
  return std::ranges::any_of(answer.warnings, [&](const std::string& w) { return w.find(text) != std::string::npos; });
}

TEST(StepHonesty, AnotherFormatsKernelWidensAndIsSaid) {
  Deployment d = vllm(8);
  d.ep = 8;
  d.backend = "trtllm";
  const auto h200 = machine("h200-sxm");
  d.dtype = DType::fp8_block;
  const Prediction own = h200->predict(zoo("qwen3-235b-a22b"), d, decode(64));
  d.dtype = DType::nvfp4;  // no kernel on a Hopper
  const Prediction other = h200->predict(zoo("qwen3-235b-a22b"), d, decode(64));
  EXPECT_TRUE(warns(other, "stands for it"));
  EXPECT_EQ(other.origin, Origin::extrapolated);
  EXPECT_EQ(own.origin, Origin::fitted);
  EXPECT_GT(*other.high / *other.low, 1.7 * (*own.high / *own.low));
}

TEST(StepHonesty, EnginesRefuseSlicesThatCutThroughBlocksOfScales) {
  const auto h200 = machine("h200-sxm");
  Deployment d = vllm(8);
  d.dtype = DType::fp8_block;
  EXPECT_TRUE(warns(h200->predict(zoo("qwen3-235b-a22b"), d, decode(8)), "slices of 192"));
  d.tp = 4;  // 384 are three blocks
  EXPECT_FALSE(warns(h200->predict(zoo("qwen3-235b-a22b"), d, decode(8)), "slices of"));
  d.tp = d.ep = 8;  // whole experts
  EXPECT_FALSE(warns(h200->predict(zoo("qwen3-235b-a22b"), d, decode(8)), "slices of"));
  d.ep = 1;
  d.dtype = DType::bf16;
  EXPECT_FALSE(warns(h200->predict(zoo("qwen3-235b-a22b"), d, decode(8)), "slices of"));
}

TEST(StepHonesty, MemoryThatNoEngineTakesIsSaid) {
  const auto h200 = machine("h200-sxm");
  EXPECT_TRUE(warns(h200->predict(zoo("mixtral-8x7b"), vllm(1), decode(88, 4096)), "leave a tenth"));
  EXPECT_FALSE(warns(h200->predict(zoo("mixtral-8x7b"), vllm(1), decode(50, 4096)), "leave a tenth"));
}

TEST(StepHonesty, OnePromptIsNotOneOnEveryReplica) {
  const auto h200 = machine("h200-sxm");
  Deployment d = vllm(1);
  d.dp = d.ep = 8;
  const auto seconds = [&](std::int64_t prompts) {
    Workload w = decode(prompts, 0);
    w.phase = Phase::prefill;
    w.prompt = 4096;
    return h200->predict(zoo("qwen3-30b-a3b"), d, w).latency->value();
  };
  EXPECT_LT(seconds(1), 0.6 * seconds(8)) << "eight times the rows of experts";
  EXPECT_GT(seconds(9), 1.1 * seconds(8)) << "one rank has two";
  EXPECT_LT(seconds(9), 0.8 * seconds(16));
}

}  // namespace
}  // namespace moecast
