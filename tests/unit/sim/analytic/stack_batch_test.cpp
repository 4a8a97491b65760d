#include "sim/analytic/stack_batch.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/core/error.h"
#include "sim/make_predictor.h"
#include "tests/support/allocation_count.h"
#include "tests/support/random_models.h"
#include "tests/support/synthetic_calibration.h"

namespace moecast {
namespace {

std::shared_ptr<const Calibration> calibration() {
  static const auto made = std::make_shared<const Calibration>(synthetic_calibration({"onednn"}, 400));
  return made;
}

Deployment deployment() {
  Deployment d;
  d.backend = "onednn";
  d.dtype = DType::fp32;
  return d;
}

Workload decode(std::int64_t batch) {
  Workload w;
  w.batch = batch;
  w.context = 256;
  return w;
}

Workload prefill() {
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = 96;
  return w;
}

/// Rows of the models, as wide as the longest.
std::vector<std::int32_t> rows_of(StackBatch& batch, const std::vector<Architecture>& models, std::size_t& width) {
  std::vector<std::vector<std::int32_t>> parts;
  width = 0;
  for (const Architecture& model : models) {
    parts.push_back(batch.parts_of(model));
    width = std::max(width, parts.back().size());
  }
  std::vector<std::int32_t> rows;
  for (auto& row : parts) {
    row.resize(width, -1);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return rows;
}

struct Answers {
  explicit Answers(std::size_t n)
      : latency(n), low(n), high(n), memory(n), bytes(n), total(n), active(n), flops(n), status(n) {}
  StackTimes times() {
    StackTimes t;
    t.latency_s = latency;
    t.low_s = low;
    t.high_s = high;
    t.memory_bandwidth_s = memory;
    t.memory_bytes = bytes;
    t.parameters = total;
    t.active_parameters = active;
    t.flops = flops;
    t.status = status;
    return t;
  }
  std::vector<double> latency, low, high, memory, bytes, total, active, flops;
  std::vector<std::uint8_t> status;
};

void expect_same(const std::vector<Architecture>& models, const Workload& workload) {
  StackBatch batch(synthetic_profile(), calibration(), deployment(), workload);
  const auto predictor = make_predictor(synthetic_profile(), calibration());
  std::size_t width = 0;
  const std::vector<std::int32_t> rows = rows_of(batch, models, width);
  batch.prepare({rows, width});
  Answers answers(models.size());
  ASSERT_TRUE(batch.predict({rows, width}, answers.times()));
  for (std::size_t i = 0; i < models.size(); ++i) {
    const Prediction one = predictor->predict(models[i], deployment(), workload);
    ASSERT_EQ(one.status, Status::ok);
    EXPECT_NEAR(answers.latency[i] / one.latency->value(), 1, 0.01) << i;
    EXPECT_NEAR(answers.low[i] / one.low->value(), 1, 0.015) << i;
    EXPECT_NEAR(answers.high[i] / one.high->value(), 1, 0.015) << i;
    EXPECT_NEAR(answers.memory[i] / one.factors.memory_bandwidth.value(), 1, 0.02) << i;
    EXPECT_NEAR(answers.bytes[i] / one.memory.total().value(), 1, 1e-3) << i;
    EXPECT_NEAR(answers.total[i] / one.total_parameters, 1, 1e-9) << i;
    EXPECT_NEAR(answers.active[i] / one.active_parameters, 1, 1e-9) << i;
    EXPECT_NEAR(answers.flops[i] / one.flops->value(), 1, 1e-9) << i;
  }
}

TEST(StackBatch, AgreesWithThePredictorOnDecode) { expect_same(random_models(40, 8, 1), decode(4)); }
TEST(StackBatch, AgreesWithThePredictorOnPrefill) { expect_same(random_models(40, 8, 2), prefill()); }

TEST(StackBatch, AgreesOnAnEncoderAndADecoderOfOtherWidths) {
  std::vector<Architecture> models = random_models(12, 3, 3);
  for (std::size_t i = 0; i < models.size(); ++i) {
    Architecture& model = models[i];
    model.tied_embeddings = true;
    model.encoder_hidden = i % 2 == 0 ? 384 : 0;
    for (Layer layer : model.decoder) {
      std::get<AttentionBlock>(layer.blocks[0]).causal = false;
      model.encoder.push_back(layer);
    }
    for (Layer& layer : model.decoder) {
      AttentionBlock cross = std::get<AttentionBlock>(layer.blocks[0]);
      cross.kind = AttentionKind::cross;
      cross.causal = false;
      cross.source_layers = 1 + static_cast<std::int64_t>(i % 3);
      layer.blocks.insert(layer.blocks.begin() + 1, cross);
    }
  }
  Workload w = prefill();
  w.prompt = 1;
  w.source = 40;
  expect_same(models, w);
  Workload d = decode(5);
  d.source = 40;
  expect_same(models, d);
}

TEST(StackBatch, EqualLayersShareAPart) {
  StackBatch batch(synthetic_profile(), calibration(), deployment(), decode(1));
  const std::vector<Architecture> models = random_models(1, 1, 4);
  Architecture twice = models[0];
  twice.decoder.push_back(twice.decoder[0]);
  const auto parts = batch.parts_of(twice);
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[1], parts[2]);
  EXPECT_EQ(batch.part_count(), 4U);  // the end, two blocks, and the layer that they make
}

TEST(StackBatch, LayersAreMadeOfBlocksThatAreCostedOnce) {
  StackBatch batch(synthetic_profile(), calibration(), deployment(), decode(1));
  Architecture model = random_models(1, 2, 4)[0];
  ASSERT_EQ(model.decoder[0].blocks.size(), 2U);
  static_cast<void>(batch.parts_of(model));
  const std::size_t before = batch.part_count();
  Architecture mixed = model;
  std::swap(mixed.decoder[0].blocks[1], mixed.decoder[1].blocks[1]);
  ASSERT_NE(mixed, model);
  const auto parts = batch.parts_of(mixed);
  EXPECT_LE(batch.part_count(), before + 2);  // two layers, no block
  std::vector<std::int32_t> blocks;
  for (const Block& block : mixed.decoder[0].blocks) {
    Architecture alone = mixed;
    alone.decoder = {Layer{{block}}, Layer{{block}}};
    blocks.push_back(batch.parts_of(alone).back());
  }
  EXPECT_EQ(batch.stacked(blocks), parts[1]);
  EXPECT_EQ(batch.stacked({blocks.data(), 1}), blocks[0]);
  EXPECT_THROW(batch.stacked({}), InputError);
  const std::vector<std::int32_t> unknown{999};
  EXPECT_THROW(batch.stacked(unknown), InputError);
}

TEST(StackBatch, TheHotLoopDoesNotAllocate) {
  StackBatch batch(synthetic_profile(), calibration(), deployment(), decode(2));
  std::size_t width = 0;
  const std::vector<std::int32_t> rows = rows_of(batch, random_models(20, 12, 5), width);
  batch.prepare({rows, width});
  Answers answers(20);
  const StackTimes times = answers.times();
  const long before = test::allocation_count();
  const bool done = batch.predict({rows, width}, times);
  const long after = test::allocation_count();
  ASSERT_TRUE(done);
  if (MOECAST_COUNTS_ALLOCATIONS) {
    EXPECT_EQ(after, before);
  }
}

TEST(StackBatch, RefusesWhatItDoesNotKnow) {
  StackBatch batch(synthetic_profile(), calibration(), deployment(), decode(1));
  const std::vector<std::int32_t> wrong{7};
  EXPECT_THROW(batch.prepare({wrong, 1}), InputError);
  Answers answers(1);
  EXPECT_FALSE(batch.predict({wrong, 1}, answers.times()));
  Deployment two = deployment();
  two.tp = 2;
  EXPECT_THROW(StackBatch(synthetic_profile(), calibration(), two, decode(1)), InputError);
}

TEST(StackBatch, WhatCannotBeTimedIsOutsideOfTheRange) {
  StackBatch batch(synthetic_profile(), calibration(), deployment(), decode(1));
  Architecture model = random_models(1, 2, 6)[0];
  MoeBlock hashed;
  ExpertSpec ffn;
  ffn.width = 512;
  hashed.experts = {{4, ffn, ""}};
  hashed.router.kind = RouterKind::hash;
  model.decoder[1].blocks[1] = hashed;
  const auto parts = batch.parts_of(model);
  EXPECT_NE(batch.problem(parts.back()).find("hash"), std::string::npos);
  batch.prepare({parts, parts.size()});
  Answers answers(1);
  ASSERT_TRUE(batch.predict({parts, parts.size()}, answers.times()));
  EXPECT_EQ(answers.status[0], static_cast<std::uint8_t>(StackStatus::outside_range));
  EXPECT_TRUE(std::isnan(answers.latency[0]));
  EXPECT_TRUE(std::isnan(answers.flops[0]));
}

}  // namespace
}  // namespace moecast
