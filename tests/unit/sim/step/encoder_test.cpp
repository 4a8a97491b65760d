#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "sim/step/attention_view.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

const Predictor& h200() {
  static const auto predictor = load_gpu_predictor(kRoot + "/hwprofiles/h200-sxm", kRoot + "/models/plan/engines");
  return *predictor;
}

Architecture model(const std::string& name) { return load_architecture(kRoot + "/models/zoo/" + name + ".json"); }

Workload step(Phase phase, std::int64_t batch, std::int64_t prompt, std::int64_t source) {
  Workload w;
  w.phase = phase;
  w.batch = batch;
  w.prompt = prompt;
  w.source = source;
  if (phase == Phase::decode) w.context = 31;
  return w;
}

double part(const Prediction& p, const std::string& name) {
  double sum = 0;
  for (const OperatorCost& cost : p.operators) sum += cost.name == name ? cost.latency.value() : 0;
  return sum;
}

TEST(AttentionView, EqualPairsOfEveryMask) {
  StepShape shape;
  shape.prompts = 2;
  shape.context = 200;  // 100 tokens each
  shape.source = 400;
  // A causal prompt of L has L^2 / 2 pairs in the tables.
  AttentionBlock block;
  const auto twice_pairs = [&] { return std::pow(equal_prompts(shape, {block, true}).length, 2); };
  EXPECT_NEAR(twice_pairs(), 100.0 * 100, 1e-6);
  block.causal = false;
  EXPECT_NEAR(twice_pairs(), 2 * 100.0 * 100, 1e-6);
  block.kind = AttentionKind::cross;
  EXPECT_NEAR(twice_pairs(), 2 * 100.0 * 400, 1e-6);
  block.source_layers = 3;
  EXPECT_NEAR(twice_pairs(), 2 * 100.0 * 1200, 1e-6);
  shape.decodes = 5;
  shape.decode_kv = 32;
  EXPECT_EQ(pairs_of(shape, {block, false}), 1200);
  EXPECT_EQ(pairs_of(shape, {{}, false}), 32);
}

TEST(Encoders, AVisionTowerEncodesAndNothingElse) {
  const Architecture vision = model("v-moe-b-16-every2");
  const auto encode = [&](std::int64_t batch) {
    return h200().predict(vision, {}, step(Phase::encode, batch, 197, 0));
  };
  const Prediction one = encode(1);
  ASSERT_EQ(one.status, Status::ok) << one.reason;
  EXPECT_GT(part(one, "attention.prefill"), 0);
  EXPECT_EQ(part(one, "attention.decode"), 0);
  EXPECT_EQ(part(one, "head"), 0);
  EXPECT_GT(part(one, "experts"), 0);
  EXPECT_GT(encode(256).latency->value(), 2 * one.latency->value());
  EXPECT_THROW(h200().predict(vision, {}, step(Phase::decode, 1, 1, 0)), InputError);
}

TEST(Encoders, TranslationEncodesOnceAndCrossAttendsInEveryStep) {
  const Architecture a = model("switch-base-8");
  const Prediction decode = h200().predict(a, {}, step(Phase::decode, 16, 1, 512));
  ASSERT_EQ(decode.status, Status::ok) << decode.reason;
  EXPECT_GT(part(decode, "cross.decode"), 0);
  EXPECT_GT(part(decode, "cross.q"), 0);
  EXPECT_EQ(part(decode, "cross.kv"), 0);  // keys and values of the source are kept
  EXPECT_EQ(part(decode, "encoder.experts"), 0);
  const Prediction prefill = h200().predict(a, {}, step(Phase::prefill, 16, 4, 512));
  ASSERT_EQ(prefill.status, Status::ok) << prefill.reason;
  EXPECT_GT(part(prefill, "encoder.experts"), 0);
  EXPECT_GT(part(prefill, "encoder.attention.prefill"), 0);
  EXPECT_GT(part(prefill, "cross.kv"), 0);
  double sum = 0;
  for (const OperatorCost& cost : prefill.operators) sum += cost.latency.value();
  EXPECT_NEAR(sum, prefill.latency->value(), 1e-9 * sum);
  // A longer source is encoded for longer and read for longer.
  EXPECT_GT(h200().predict(a, {}, step(Phase::prefill, 16, 4, 8192)).latency->value(), prefill.latency->value());
  EXPECT_GT(part(h200().predict(a, {}, step(Phase::decode, 16, 1, 8192)), "cross.decode"),
            part(decode, "cross.decode"));
}

TEST(Encoders, StagesAndContextsAreRefusedByName) {
  const Architecture a = model("switch-base-8");
  Deployment d;
  d.pp = 2;
  EXPECT_THROW(h200().predict(a, d, step(Phase::decode, 1, 1, 64)), InputError);
  d.pp = 1;
  d.cp = 2;
  EXPECT_THROW(h200().predict(a, d, step(Phase::decode, 1, 1, 64)), InputError);
}

}  // namespace
}  // namespace moecast
