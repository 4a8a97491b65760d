#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "models/architecture/zoo.h"
#include "sim/step/linear_layer.h"
#include "sim/step/step_operators.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

const KernelCalibration& h200() {
  static const KernelCalibration kernels = read_kernel_calibration(kRoot + "/hwprofiles/h200-sxm", "h200-sxm");
  return kernels;
}

double seconds(Fp8Inputs inputs, const std::string& framework, double rows) {
  return find_linear_layer(h200(), {framework, "", inputs}, 8192, 2048, DType::fp8).seconds(rows);
}

TEST(Fusion, WhatComesIntoFp8LayersIsTakenOutAsItWasMeasured) {
  for (const double rows : {8.0, 512.0}) {
    const double measured = seconds(Fp8Inputs::as_measured, "trtllm", rows);
    const double constant = seconds(Fp8Inputs::constant_scales, "trtllm", rows);
    const double before = seconds(Fp8Inputs::quantised_before, "trtllm", rows);
    // Tables: scales of 2,048 columns take 7 us at 8 rows, quantisation 1.3 us.
    EXPECT_GT(measured - constant, 5e-6);
    EXPECT_GT(constant - before, 0.8e-6);
    EXPECT_LT(constant - before, 4e-6);
    EXPECT_GT(before, 8192.0 * 2048 / 4.8e12) << "the weights are read";
  }
}

TEST(Fusion, WhereInputsWereNotMeasuredApartAnotherFrameworksProductStands) {
  // TensorRT-LLM's tables of H100 have neither scales nor quantisation.
  const KernelCalibration h100 = read_kernel_calibration(kRoot + "/hwprofiles/h100-sxm", "h100-sxm");
  const auto of = [&](Fp8Inputs inputs) {
    return find_linear_layer(h100, {"trtllm", "", inputs}, 8192, 2048, DType::fp8);
  };
  const LinearLayer before = of(Fp8Inputs::quantised_before);
  EXPECT_THAT(before.kernel, testing::HasSubstr("stands for trtllm, whose inputs were not measured apart"));
  EXPECT_LT(before.seconds(16), 0.7 * of(Fp8Inputs::as_measured).seconds(16));
  EXPECT_NEAR(before.seconds(16) / seconds(Fp8Inputs::quantised_before, "trtllm", 16), 1, 0.1) << "H200's product";
}

TEST(Fusion, OnlyFp8IsQuantisedThere) {
  const auto of = [](Fp8Inputs inputs, DType dtype) {
    return find_linear_layer(h200(), {"trtllm", "", inputs}, 8192, 2048, dtype).seconds(8);
  };
  for (const DType dtype : {DType::bf16, DType::fp8_block}) {
    EXPECT_EQ(of(Fp8Inputs::as_measured, dtype), of(Fp8Inputs::quantised_before, dtype));
  }
}

TEST(Fusion, EachAllReduceThatNormsSavesASmallKernel) {
  EngineSpec engine;
  engine.name = "trtllm";
  Deployment deployment;
  const Architecture llama = load_zoo(kRoot + "/models/zoo", "llama-3.1-70b");
  const auto launching = [&](int tp, bool norms) {
    deployment.tp = tp;
    engine.all_reduce_norms = norms;
    return make_step_operators(llama, deployment, engine, h200()).launching_layers();
  };
  EXPECT_NEAR(launching(8, false), 80 * 5.0 / 7, 1e-9);
  EXPECT_NEAR(launching(8, true), 80 * 3.0 / 7, 1e-9) << "two of five a layer";
  EXPECT_NEAR(launching(1, true), launching(1, false), 1e-9) << "nothing is reduced";
  deployment.all_reduce = "trtllm";
  EXPECT_NEAR(launching(8, false), 80 * 3.0 / 7, 1e-9) << "the deployment has it";
}

const StepOperator* find(const StepOperators& operators, const std::string& name) {
  const auto found = std::ranges::find(operators.operators, name, &StepOperator::name);
  return found == operators.operators.end() ? nullptr : &*found;
}

class SharedAmongRouted : public testing::Test {
 protected:
  StepOperators of(const std::string& model, int tp, int ep) {
    Deployment deployment;
    deployment.tp = tp;
    deployment.ep = ep;
    return make_step_operators(load_zoo(kRoot + "/models/zoo", model), deployment, engine_, h200());
  }
  static StepShape tokens(double rows) {
    StepShape shape;
    shape.decodes = shape.rows = shape.expert_rows = rows;
    shape.decode_kv = 100;
    return shape;
  }
  EngineSpec engine_ = read_engine(kRoot + "/models/plan/engines", "sglang");
};

TEST_F(SharedAmongRouted, IsOneMoreExpertThatEveryTokenTakes) {
  const StepOperators fused = of("deepseek-v3", 8, 1);
  EXPECT_EQ(find(fused, "shared.gate_up"), nullptr);
  const StepOperator& experts = *find(fused, "experts");
  const double fused_s = experts.seconds(tokens(4));
  const StepWork fused_work = experts.work(tokens(4));
  engine_.shared_expert_kernels.clear();
  const StepOperators apart = of("deepseek-v3", 8, 1);
  ASSERT_NE(find(apart, "shared.gate_up"), nullptr);
  const StepOperator& routed = *find(apart, "experts");
  const double shared_s =
      find(apart, "shared.gate_up")->seconds(tokens(4)) + find(apart, "shared.down")->seconds(tokens(4));
  EXPECT_GT(fused_s, routed.seconds(tokens(4)));
  EXPECT_LT(fused_s, routed.seconds(tokens(4)) + shared_s) << "two launches less";
  // A ninth expert of 8: an eighth more arithmetic, one expert's weights more.
  EXPECT_NEAR(fused_work.flops / routed.work(tokens(4)).flops, 9.0 / 8, 1e-9);
  EXPECT_NEAR(fused_work.bytes - routed.work(tokens(4)).bytes,
              3.0 * 7168 * 2048 / 8 * bytes_per_weight(DType::fp8_block), 1);
}

TEST_F(SharedAmongRouted, ManyTokensTakeAnEighthMoreRows) {
  const double fused_s = find(of("deepseek-v3", 8, 1), "experts")->seconds(tokens(8192));
  engine_.shared_expert_kernels.clear();
  const double routed_s = find(of("deepseek-v3", 8, 1), "experts")->seconds(tokens(8192));
  EXPECT_GT(fused_s / routed_s, 1.05);
  EXPECT_LT(fused_s / routed_s, 1.2);
}

TEST_F(SharedAmongRouted, NotWithExpertParallelismNorOfAnotherWidthOrGate) {
  EXPECT_NE(find(of("llama-4-maverick", 8, 1), "shared.gate_up"), nullptr) << "one choice, not biased";
  EXPECT_NE(find(of("deepseek-v3", 8, 8), "shared.gate_up"), nullptr);
  EXPECT_NE(find(of("qwen1.5-moe-a2.7b", 1, 1), "shared.gate_up"), nullptr) << "four times as wide, and gated";
  engine_.shared_expert_kernels = {"another kernel"};
  EXPECT_NE(find(of("deepseek-v3", 8, 1), "shared.gate_up"), nullptr);
}

}  // namespace
}  // namespace moecast
