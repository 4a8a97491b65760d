#include "models/plan/training_stage.h"

#include <gtest/gtest.h>

#include "models/core/error.h"
#include "models/plan/graph.h"
#include "models/plan/memory.h"
#include "models/plan/training_graph.h"
#include "models/plan/training_memory.h"
#include "tests/support/small_models.h"

namespace moecast {
namespace {

Deployment stages(int pp) {
  Deployment d;
  d.pp = pp;
  return d;
}

double flops(const OperatorGraph& graph) {
  double sum = 0;
  for (const Operator& op : graph.operators) sum += op.flops.value() * op.count;
  return sum;
}

double parameters(const StageOfTraining& one) {
  double sum = 0;
  for (const PartWeights& p : part_weights(one.architecture, one.deployment, one.workload.training, one.ends)) {
    sum += p.parameters;
  }
  return sum;
}

TEST(TrainingStage, StagesDoTheWorkAndHoldTheWeightsOfTheWhole) {
  const Workload w = training_step(8, 4);
  double whole = 0;
  for (const PartWeights& part : part_weights(small_moe_model(), {}, w.training)) whole += part.parameters;
  double held = 0;
  double computed = 0;
  for (std::size_t s = 0; s < 3; ++s) {
    const StageOfTraining one = training_stage(small_moe_model(), stages(3), w, s);
    EXPECT_EQ(one.architecture.decoder.size(), 1U);
    held += parameters(one);
    computed += flops(training_graph(one.architecture, one.deployment, one.workload, one.ends));
  }
  EXPECT_DOUBLE_EQ(held, whole);
  EXPECT_NEAR(computed / flops(build_graph(small_moe_model(), {}, w)), 1, 1e-12);
}

TEST(TrainingStage, TiedEmbeddingsLieOnBothEnds) {
  Architecture a = small_moe_model();
  a.tied_embeddings = true;
  const Workload w = training_step(8, 4);
  double whole = 0;
  for (const PartWeights& part : part_weights(a, {}, w.training)) whole += part.parameters;
  double held = 0;
  for (std::size_t s = 0; s < 3; ++s) held += parameters(training_stage(a, stages(3), w, s));
  EXPECT_DOUBLE_EQ(held, whole + 100 * 64);
}

TEST(TrainingStage, TheGradientOfTheInputIsWantedAboveWhatIsTrained) {
  Workload w = training_step(8, 4);
  freeze_all_but(w, ModelPart::head);
  EXPECT_FALSE(training_stage(small_moe_model(), stages(3), w, 2).workload.training.input_gradient);
  freeze_all_but(w, ModelPart::embedding);
  EXPECT_TRUE(training_stage(small_moe_model(), stages(3), w, 1).workload.training.input_gradient);
  EXPECT_FALSE(training_stage(small_moe_model(), stages(3), w, 0).workload.training.input_gradient);
}

TEST(TrainingStage, EarlierStagesKeepMoreMicroBatches) {
  // 1F1B on four stages: 4, 3, 2 and 1 of them, no more than there are.
  Workload w = training_step(8, 4);
  w.training.accumulation = 8;
  for (std::size_t s = 0; s < 4; ++s) EXPECT_EQ(micro_batches_kept(stages(4), w.training, s), 4 - s);
  w.training.accumulation = 2;
  EXPECT_EQ(micro_batches_kept(stages(4), w.training, 0), 2);
  EXPECT_EQ(micro_batches_kept(stages(4), w.training, 3), 1);
}

TEST(TrainingStage, ARankHoldsItsStageOnly) {
  Architecture a = small_moe_model();
  a.decoder.assign(8, a.decoder.front());
  a.vocabulary = 0;
  Workload w = training_step(8, 64);
  w.training.accumulation = 4;
  const MemoryBreakdown whole = memory_per_rank(a, {}, w);
  const MemoryBreakdown first = memory_per_rank(a, stages(4), w);
  EXPECT_NEAR(whole.gradients / first.gradients, 4, 0.01);
  EXPECT_NEAR(whole.optimizer_states / first.optimizer_states, 4, 0.01);
  // A quarter of the layers, for four micro-batches at once.
  EXPECT_NEAR(first.saved_activations / whole.saved_activations, 1, 0.01);
}

TEST(TrainingStage, SaysWhatItDoesNotDivide) {
  const auto where = [](const Architecture& a, Deployment d) -> std::string {
    try {
      static_cast<void>(training_stage(a, d, training_step(8, 4), 0));
    } catch (const InputError& error) {
      return error.where();
    }
    return "nothing thrown";
  };
  EXPECT_EQ(where(small_moe_model(), stages(4)), "pp");
  Deployment parts = stages(3);
  parts.micro_batches = 4;
  EXPECT_EQ(where(small_moe_model(), parts), "micro_batches");
  Architecture encoder = small_moe_model();
  encoder.encoder = encoder.decoder;
  EXPECT_EQ(where(encoder, stages(3)), "pp");
}

}  // namespace
}  // namespace moecast
