// Every model of the zoo: it loads, counts, and a step of it is predicted, or the answer says what is missing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <optional>
#include <set>

#include "models/architecture/accounting.h"
#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "sim/cost/calibration.h"
#include "sim/make_predictor.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;
const std::string kZoo = kRoot + "/models/zoo";
const std::string kXeon = kRoot + "/hwprofiles/intel-xeon-processor-2cpu";

/// Xeon with all the memory that a model may want: how long a step would take, were it to fit.
std::unique_ptr<Predictor> roomy_xeon(Calibration calibration) {
  Profile profile = read_profile(kXeon);
  profile.quantities.erase("memory_capacity");
  return make_predictor(std::move(profile), std::make_shared<const Calibration>(std::move(calibration)),
                        Engine::analytic);
}

/// The Xeon's kernels, and made-up ones where nobody measured: 2 us a call, a nanosecond a term of their law.
Calibration with_made_up_stages() {
  Calibration calibration = read_calibration(kXeon);
  for (const OperatorKind kind : {OperatorKind::convolution, OperatorKind::state_update}) {
    Eigen::VectorXd terms =
        Eigen::VectorXd::Constant(static_cast<Eigen::Index>(StageLaw::term_names(kind).size()), 1e-10);
    terms(0) = 2e-6;
    StageCalibration stage;
    stage.dtype = DType::bf16;
    stage.threads = 2;
    stage.law = StageLaw(kind, terms);
    stage.half_width = 0.3;
    calibration.stages.push_back(stage);
  }
  return calibration;
}

const Predictor& gpu(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Predictor>> loaded;
  auto& predictor = loaded[name];
  if (!predictor) predictor = load_gpu_predictor(kRoot + "/hwprofiles/" + name, kRoot + "/models/plan/engines");
  return *predictor;
}

Workload step_of(const Architecture& model) {
  Workload w;
  w.phase = model.decoder.empty() ? Phase::encode : Phase::decode;
  w.batch = 8;
  w.prompt = w.phase == Phase::encode ? 64 : 1;
  w.context = w.phase == Phase::encode ? 0 : 256;
  return w;
}

void expect_answer(const Prediction& p, const std::string& name) {
  ASSERT_TRUE(p.latency) << name << ": " << p.reason;
  EXPECT_GT(p.latency->value(), 0) << name;
  EXPECT_LE(*p.low, *p.latency) << name;
  EXPECT_GE(*p.high, *p.latency) << name;
}

using Refusals = std::map<std::string, std::set<std::string>>;  // what is missing -> models

const std::string* reason_of(const Refusals& refused, const std::string& model) {
  for (const auto& [reason, models] : refused) {
    if (models.contains(model)) return &reason;
  }
  return nullptr;
}

Prediction on_cpu(const Predictor& predictor, const Architecture& model) {
  Deployment d;
  d.threads = 2;
  d.dtype = DType::bf16;
  return predictor.predict(model, d, step_of(model));
}

void expect_all(const Predictor& predictor, const Refusals& refused) {
  for (const std::string& name : zoo_names(kZoo)) {
    const Architecture model = load_zoo(kZoo, name);
    const Prediction p = on_cpu(predictor, model);
    const std::string* reason = reason_of(refused, name);
    if (reason == nullptr) {
      expect_answer(p, name);
    } else {
      EXPECT_EQ(p.status, Status::outside_range) << name << " is answered now: take it out of the list";
      EXPECT_THAT(p.reason, testing::HasSubstr(*reason)) << name;
    }
  }
}

TEST(ZooPredictions, EveryPresetLoadsAndCounts_C1) {
  for (const std::string& name : zoo_names(kZoo)) {
    const ParameterCount count = count_parameters(load_zoo(kZoo, name));
    EXPECT_GT(count.active, 0) << name;
    EXPECT_LE(count.active, count.total * (1 + 1e-12)) << name;
  }
}

TEST(ZooPredictions, EveryPresetIsPredictedOnACpuThatHasItsKernels_C1) {
  expect_all(*roomy_xeon(with_made_up_stages()), {{"hash router", {"deepseek-v4-flash", "deepseek-v4-pro"}}});
}

TEST(ZooPredictions, TheShippedXeonSaysWhichKernelItLacks_C1) {
  expect_all(*roomy_xeon(read_calibration(kXeon)),
             {{"hash router", {"deepseek-v4-flash", "deepseek-v4-pro"}},
              {"holds no convolution",
               {"jamba", "kimi-k3", "nemotron-3-nano-30b-a3b", "nemotron-3-super-120b-a12b", "qwen3-next-80b-a3b",
                "qwen3.5-122b-a10b", "qwen3.5-35b-a3b", "qwen3.5-397b-a17b", "qwen3.6-35b-a3b"}},
              {"holds no state_update", {"minimax-m1", "minimax-text-01"}}});
}

TEST(ZooPredictions, HybridsListTheirLayersBlockByBlock_C17) {
  const auto kinds = [](const char* name) {
    int attention = 0;
    int linear = 0;
    int state_space = 0;
    int experts = 0;
    for (const Layer& layer : load_zoo(kZoo, name).decoder) {
      for (const Block& block : layer.blocks) {
        const auto* a = std::get_if<AttentionBlock>(&block);
        attention += a != nullptr && !a->linear ? 1 : 0;
        linear += a != nullptr && a->linear ? 1 : 0;
        state_space += std::holds_alternative<StateSpaceBlock>(block) ? 1 : 0;
        experts += std::holds_alternative<MoeBlock>(block) ? 1 : 0;
      }
    }
    return std::array{attention, linear, state_space, experts};
  };
  // Attention, linear attention, Mamba, MoE.
  EXPECT_EQ(kinds("jamba"), (std::array{4, 0, 28, 16}));
  EXPECT_EQ(kinds("qwen3-next-80b-a3b"), (std::array{12, 36, 0, 48}));
  EXPECT_EQ(kinds("minimax-text-01"), (std::array{10, 70, 0, 80}));
}

TEST(ZooPredictions, ThousandsOfExpertsBetweenLstmLayersAreTimed_D1) {
  const Architecture model = load_zoo(kZoo, "lstm-moe-137b");
  ASSERT_EQ(model.decoder.size(), 3U);
  EXPECT_TRUE(std::holds_alternative<RecurrentBlock>(model.decoder[0].blocks.front()));
  EXPECT_TRUE(std::holds_alternative<MoeBlock>(model.decoder[1].blocks.front()));
  EXPECT_TRUE(std::holds_alternative<RecurrentBlock>(model.decoder[2].blocks.front()));
  // 131,072 experts of 2 * 512 * 1024 weights and biases left out: 137.4 B.
  const double experts = 131072.0 * 2 * 512 * 1024;
  EXPECT_NEAR(count_parameters(model).routed_experts, experts, 1);
  EXPECT_NEAR(experts, 137e9, 1e9);
  const auto xeon = roomy_xeon(read_calibration(kXeon));
  expect_answer(on_cpu(*xeon, model), model.name);
}

TEST(ZooPredictions, PalmIsDenseSwitchAndGlamAreNot_B15) {
  const auto routed = [](const char* name) { return count_parameters(load_zoo(kZoo, name)).routed_experts; };
  EXPECT_EQ(routed("palm-540b"), 0);
  EXPECT_THAT(load_zoo(kZoo, "palm-540b").notes.front(), testing::HasSubstr("dense"));
  EXPECT_NEAR(count_parameters(load_zoo(kZoo, "palm-540b")).total, 540e9, 1e9);
  EXPECT_GT(routed("switch-base-128"), 0);
  EXPECT_GT(routed("switch-c-2048"), 1.5e12);
  EXPECT_GT(routed("glam-64b"), 1e12);
}

struct Attempt {
  const char* machine;
  int tp, ep, dp;
  std::optional<DType> dtype;
};

TEST(ZooPredictions, EveryPresetIsPredictedOnGpus_C1) {
  // One H200; eight of them; eight B300, whose profile holds kernels that the other one lacks; these with everything
  // split and in 8 bits, and sixteen, so that the largest fit.
  const std::array<Attempt, 6> attempts{{{"h200-sxm", 1, 1, 1, std::nullopt},
                                         {"h200-sxm", 1, 8, 8, std::nullopt},
                                         {"b300-sxm", 1, 8, 8, std::nullopt},
                                         {"b300-sxm", 8, 8, 1, DType::fp8_block},
                                         {"b300-sxm", 8, 16, 2, DType::fp8_block},
                                         {"b300-sxm", 2, 16, 8, DType::fp8_block}}};
  for (const std::string& name : zoo_names(kZoo)) {
    const Architecture model = load_zoo(kZoo, name);
    Prediction p;
    std::string problem;
    for (const Attempt& attempt : attempts) {
      Deployment d;
      d.tp = attempt.tp;
      d.ep = attempt.ep;
      d.dp = attempt.dp;
      d.dtype = attempt.dtype;
      try {
        p = gpu(attempt.machine).predict(model, d, step_of(model));
        if (p.status == Status::ok) break;
        problem += p.reason + "; ";
      } catch (const InputError& error) {
        p = {};
        p.status = Status::outside_range;
        problem += error.problem() + "; ";
      }
    }
    EXPECT_EQ(p.status, Status::ok) << name << ": " << problem;
    if (p.status == Status::ok) expect_answer(p, name);
  }
}

}  // namespace
}  // namespace moecast
