#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/plan/deployment_rules.h"
#include "models/plan/engine.h"
#include "models/plan/memory.h"
#include "sim/step/distinct_experts.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/placed_experts.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

const Predictor& b300() {
  static const auto predictor = load_gpu_predictor(kRoot + "/hwprofiles/b300-sxm", kRoot + "/models/plan/engines");
  return *predictor;
}

ExpertLoad log_normal(double sigma) {
  ExpertLoad load;
  load.kind = LoadKind::log_normal;
  load.parameter = sigma;
  return load;
}

Workload decode(std::int64_t batch) {
  Workload w;
  w.batch = batch;
  w.context = 1023;
  w.load.kind = LoadKind::log_normal;
  w.load.parameter = 1;
  return w;
}

/// Every tp, dp, ep and moe_tp that are powers of two up to the ranks.
template <class Visit>
void walk(int world, const Visit& visit) {
  for (int tp = 1; tp <= world; tp *= 2) {
    for (int ep = 1; ep <= world; ep *= 2) {
      for (int moe_tp = 1; moe_tp <= world; moe_tp *= 2) {
        Deployment d;
        d.tp = tp;
        d.dp = world / tp;
        d.ep = ep;
        d.moe_tp = moe_tp;
        visit(d);
      }
    }
  }
}

TEST(Deployments, EveryCombinationOfRanksIsAnsweredOrRefusedByRule) {
  const Architecture qwen = load_architecture(kRoot + "/models/zoo/qwen3.6-35b-a3b.json");
  for (const char* backend : {"vllm", "trtllm"}) {
    const bool mixed = std::string(backend) == "trtllm";
    for (const int world : {8, 16}) {
      int answered = 0;
      int refused = 0;
      walk(world, [&](Deployment d) {
        d.backend = backend;
        const std::string what = std::string(backend) + " tp" + std::to_string(d.tp) + " dp" + std::to_string(d.dp) +
                                 " ep" + std::to_string(d.ep) + " moe_tp" + std::to_string(*d.moe_tp);
        try {
          const Prediction p = b300().predict(qwen, d, decode(64));
          ++answered;
          ASSERT_EQ(p.status, Status::ok) << what;
          EXPECT_GT(p.latency->value(), 1e-3) << what;  // no GPU does it in a millisecond
          EXPECT_LT(p.latency->value(), 0.1) << what;
          EXPECT_EQ(d.ep * *d.moe_tp, world) << what;
          const bool offered = mixed || d.ep == 1 || d.ep == world;
          const bool warned = std::ranges::any_of(
              p.warnings, [](const std::string& text) { return text.find("does not run ep") != std::string::npos; });
          EXPECT_EQ(warned, !offered) << what;
          // Both kinds of communication where both kinds of ranks are.
          std::map<std::string, double> parts;
          for (const OperatorCost& cost : p.operators) parts[cost.name] += cost.latency.value();
          EXPECT_EQ(parts.contains("all_reduce"), d.tp > 1) << what;
          EXPECT_EQ(parts.contains("all_gather"), d.dp > 1) << what;
          EXPECT_EQ(parts.contains("reduce_scatter"), d.dp > 1) << what;
        } catch (const InputError& error) {
          ++refused;
          EXPECT_THAT(error.what(), testing::AnyOf(testing::HasSubstr("tp x dp x cp"),    // ep * moe_tp
                                                   testing::HasSubstr("do not divide")))  // heads, widths
              << what;
        }
      });
      EXPECT_GE(answered, 12) << backend << " " << world;
      EXPECT_GT(refused, answered) << backend << " " << world;
    }
  }
}

TEST(Deployments, TheRulesNameTheDegreeThatBreaksThem) {
  const Architecture qwen = load_architecture(kRoot + "/models/zoo/qwen3-30b-a3b.json");
  const auto where = [&](int tp, int dp, int ep, std::optional<int> moe_tp) -> std::string {
    Deployment d;
    d.tp = tp;
    d.dp = dp;
    d.ep = ep;
    d.moe_tp = moe_tp;
    try {
      require_consistent(qwen, d);
    } catch (const InputError& error) {
      return error.where();
    }
    return "allowed";
  };
  EXPECT_EQ(where(2, 2, 4, std::nullopt), "allowed");
  EXPECT_EQ(where(2, 2, 1, std::nullopt), "allowed");
  EXPECT_EQ(where(2, 2, 1, 4), "allowed");
  EXPECT_EQ(where(2, 2, 1, 2), "moe_tp");
  EXPECT_EQ(where(1, 1, 8, std::nullopt), "ep");
  EXPECT_EQ(where(4, 2, 4, std::nullopt), "allowed");
  EXPECT_EQ(where(4096, 4096, 4096, std::nullopt), "tp x dp x cp");  // their product has more than 31 bits
  Deployment mixed;
  mixed.tp = 4;
  mixed.dp = 2;
  mixed.ep = 4;
  const auto said = [&](const char* engine) {
    return not_offered(qwen, mixed, read_engine(kRoot + "/models/plan/engines", engine));
  };
  EXPECT_EQ(said("trtllm"), "");
  EXPECT_THAT(said("vllm"), testing::HasSubstr("all 8 ranks or over none"));
}

TEST(KvCache, IsReadInTheFormatThatItIsKeptIn) {
  Deployment d;
  d.backend = "vllm";
  const Architecture model = load_architecture(kRoot + "/models/zoo/qwen3-30b-a3b.json");
  const auto attention = [&](std::optional<DType> kv) {
    d.kv_dtype = kv;
    Workload w = decode(64);
    w.context = 16'000;
    for (const OperatorCost& op : b300().predict(model, d, w).operators) {
      if (op.name == "attention.decode") return std::pair(op.bytes->value(), op.stage);
    }
    return std::pair(0.0, std::string());
  };
  const auto [bf16_bytes, bf16_kernel] = attention(std::nullopt);
  const auto [fp8_bytes, fp8_kernel] = attention(DType::fp8);
  EXPECT_NEAR(fp8_bytes / bf16_bytes, 0.5, 0.01);
  EXPECT_NE(bf16_kernel.find("bfloat16+bfloat16"), std::string::npos) << bf16_kernel;
  EXPECT_NE(fp8_kernel.find("bfloat16+fp8"), std::string::npos) << fp8_kernel;
}

TEST(RedundantExperts, BalanceTheFullestRankAndTakeMemory) {
  const PlacedExperts none(256, 8, 32, 0, log_normal(1));
  const PlacedExperts some(256, 8, 32, 32, log_normal(1));
  for (const double tokens : {64.0, 512.0, 4096.0}) {
    const double even = tokens * 8 / 32;
    EXPECT_LT(some.at(tokens).rows, none.at(tokens).rows);
    EXPECT_GE(some.at(tokens).rows, even * (1 - 1e-9));
    EXPECT_LE(some.at(tokens).distinct, 9 + 1e-9);  // 288 places on 32 ranks
    EXPECT_LE(some.at(tokens).fullest, some.at(tokens).rows);
  }
  // Proportional beyond what is drawn.
  EXPECT_NEAR(some.at(16384).rows, 4 * some.at(4096).rows, 1e-6 * some.at(16384).rows);
  EXPECT_THROW(PlacedExperts(256, 8, 32, 5, log_normal(1)), InputError);
  // Even popularity has nothing to balance: the mean is nearly reached with and without copies.
  EXPECT_NEAR(PlacedExperts(256, 8, 32, 32, {}).at(4096).rows / (4096.0 / 4), 1, 0.1);
  // Tables of exchanges hold what even routing does by itself.
  for (const double tokens : {64.0, 1024.0, 4096.0}) {
    EXPECT_NEAR(PlacedExperts(256, 8, 32, 0, {}).imbalance(tokens), 1, 0.03);
    EXPECT_NEAR(PlacedExperts(256, 8, 32, 0, {}).node_imbalance(tokens), 1, 0.03);
  }
  EXPECT_THROW(PlacedExperts(256, 8, 1, 8, log_normal(1)), InputError);  // nobody holds an expert twice
  // In their order, eight experts a rank of log-normal popularity: the fullest of 32 ranks has far more than the mean,
  // the fullest of four nodes less so, for a token counts once there.
  EXPECT_GT(none.imbalance(4096), 1.8);
  EXPECT_GT(none.node_imbalance(4096), 1.02);
  EXPECT_LT(none.node_imbalance(4096), 0.8 * none.imbalance(4096));
  EXPECT_LT(some.imbalance(4096), 1.3);
  const Architecture deepseek = load_architecture(kRoot + "/models/zoo/deepseek-v3.json");
  Deployment d;
  d.dp = d.ep = 32;
  const double before = memory_per_rank(deepseek, d, decode(32)).weights.value();
  d.redundant_experts = 32;
  const double after = memory_per_rank(deepseek, d, decode(32)).weights.value();
  // One expert more a rank in each of 58 layers: 3 matrices of 7168 x 2048.
  const double expert = 3.0 * 7168 * 2048 * bytes_per_weight(deepseek.expert_dtype.value_or(deepseek.dtype));
  EXPECT_NEAR(after - before, 58 * expert, 1e-6 * after);
}

TEST(RedundantExperts, MakePromptsOfWideExpertParallelismFaster) {
  const auto h200 = load_gpu_predictor(kRoot + "/hwprofiles/h200-sxm", kRoot + "/models/plan/engines");
  const Architecture deepseek = load_architecture(kRoot + "/models/zoo/deepseek-v3.json");
  Workload w = decode(32);
  w.phase = Phase::prefill;
  w.context = 0;
  w.prompt = 1024;
  Deployment d;
  d.dp = d.ep = 32;
  d.backend = "sglang";
  const auto experts = [&](int copies) {
    d.redundant_experts = copies;
    double sum = 0;
    for (const OperatorCost& cost : h200->predict(deepseek, d, w).operators) {
      if (cost.name == "experts") sum += cost.latency.value();
    }
    return sum;
  };
  EXPECT_LT(experts(32), experts(0));
  EXPECT_GT(experts(32), 0.3 * experts(0));
}

TEST(EagerLaunches, LimitSmallStepsAndNotLargeOnes) {
  const Architecture qwen = load_architecture(kRoot + "/models/zoo/qwen3.6-35b-a3b.json");
  Deployment d;
  d.tp = d.ep = 2;
  const auto step = [&](std::int64_t batch, bool eager) {
    d.eager = eager;
    return b300().predict(qwen, d, decode(batch));
  };
  const EngineHost host = read_engine(kRoot + "/models/plan/engines", "vllm").host;
  const double layers = 40;
  const Prediction small = step(1, true);
  EXPECT_GE(small.latency->value(), (host.eager_launch_s + host.prepare_s) * layers) << "what the host needs to launch";
  EXPECT_LT(small.latency->value(), 1.2 * (host.eager_launch_s + host.prepare_s) * layers);
  EXPECT_EQ(small.bottleneck, "launch");
  EXPECT_GT(*small.latency / *step(1, false).latency, 4);
  EXPECT_LT(*step(2048, true).latency / *step(2048, false).latency, 2.5);
  EXPECT_GT(*small.high / *small.low, *step(1, false).high / *step(1, false).low) << "it was not measured";
  EXPECT_THAT(small.warnings, testing::Contains(testing::HasSubstr("eager")));
  Workload prompts = decode(8);
  prompts.phase = Phase::prefill;
  prompts.context = 0;
  prompts.prompt = 2048;
  d.eager = false;
  const Prediction replayed = b300().predict(qwen, d, prompts);
  d.eager = true;
  EXPECT_EQ(replayed.latency->value(), b300().predict(qwen, d, prompts).latency->value()) << "no graph is that large";
}

}  // namespace
}  // namespace moecast
