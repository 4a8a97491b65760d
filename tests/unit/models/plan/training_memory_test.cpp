#include "models/plan/training_memory.h"

#include <gtest/gtest.h>

#include "models/architecture/accounting.h"
#include "models/architecture/zoo.h"
#include "models/plan/memory.h"
#include "tests/support/small_models.h"

namespace moecast {
namespace {

const std::string kZoo = MOECAST_SOURCE_DIR "/models/zoo";

double trained(const Architecture& a) {
  double sum = 0;
  for (const PartWeights& part : part_weights(a, {}, {})) sum += part.parameters;
  return sum;
}

TEST(TrainingMemory, PartsHoldTheParametersOfEveryModelOfTheZoo) {
  for (const std::string& name : zoo_names(kZoo)) {
    const Architecture a = load_zoo(kZoo, name);
    // A lone block is executed without its norm and the final one.
    const double norms = is_lone_block(a) ? 2.0 * static_cast<double>(a.hidden) : 0;
    const double total = count_parameters(a).total - a.other_parameters - norms;
    EXPECT_NEAR(trained(a) / total, 1, 1e-12) << name;
  }
}

TEST(TrainingMemory, MixedPrecisionAdamTakesSixteenBytesAParameter_C14) {
  // 2 of the weight, 2 of its gradient, 4 of the fp32 copy, 8 of two states (Rajbhandari et al. 2020, ZeRO, section 3).
  Deployment d;
  d.dtype = DType::bf16;
  const Architecture a = small_moe_model();
  const double weights = trained(a);
  Workload w = training_step(8, 4);
  const TrainingMemory adam = training_memory(a, d, w);
  EXPECT_DOUBLE_EQ(adam.gradients.value(), 2 * weights);
  EXPECT_DOUBLE_EQ(adam.optimizer_states.value(), 12 * weights);
  w.training.optimizer = Optimizer::momentum;
  EXPECT_DOUBLE_EQ(training_memory(a, d, w).optimizer_states.value(), 8 * weights);
  w.training.optimizer = Optimizer::sgd;
  w.training.master_weights = false;
  EXPECT_EQ(training_memory(a, d, w).optimizer_states.value(), 0);
  const MemoryBreakdown whole = memory_per_rank(a, d, training_step(8, 4));
  EXPECT_EQ(whole.kv_cache.value(), 0);
  EXPECT_GE(whole.total().value(), (2 + 2 + 12) * weights);
}

TEST(TrainingMemory, AFrozenPartKeepsItsWeightsOnly_C14) {
  const Architecture a = small_moe_model();
  Workload w = training_step(8, 4);
  const TrainingMemory all = training_memory(a, {}, w);
  freeze(w, ModelPart::experts);
  const TrainingMemory frozen = training_memory(a, {}, w);
  const double experts = 3.0 * 8 * 3 * 64 * 32;
  EXPECT_DOUBLE_EQ((all.gradients - frozen.gradients).value(), 4 * experts);
  EXPECT_DOUBLE_EQ((all.optimizer_states - frozen.optimizer_states).value(), 8 * experts);
  // Inputs of their GEMMs: 64 rows of 64 columns and of 32, fp32, in three layers. What activations need stays.
  EXPECT_DOUBLE_EQ((all.saved_activations - frozen.saved_activations).value(), 3.0 * 64 * (64 + 32) * 4);
}

TEST(TrainingMemory, ZeroSharesStatesAmongTheRanksThatHoldThem) {
  Deployment d;
  d.ep = d.dp = 4;
  Workload w = training_step(32, 4);
  w.training.replicas = 2;
  const double experts = 3.0 * 8 / 4 * 3 * 64 * 32;
  double parameters = 0;
  for (const PartWeights& part : part_weights(small_moe_model(), d, w.training)) parameters += part.parameters;
  EXPECT_DOUBLE_EQ(training_memory(small_moe_model(), d, w).optimizer_states.value(), 8 * parameters);
  w.training.zero_stage = 1;
  EXPECT_DOUBLE_EQ(training_memory(small_moe_model(), d, w).optimizer_states.value(),
                   8 * (experts / 2 + (parameters - experts) / 8));
}

TEST(TrainingMemory, EachStageOfZeroSharesOnePartMore) {
  // Mixed precision and Adam: 2 B of weights, 2 B of gradients, 12 B of states a parameter; n = 8 replicas keep
  // 16, 4 + 12/n, 2 + 14/n and 16/n bytes (Rajbhandari et al. 2020, figure 1).
  Deployment d;
  d.dtype = DType::bf16;
  Workload w = training_step(32, 4);
  w.training.replicas = 8;
  double parameters = 0;
  for (const PartWeights& part : part_weights(small_moe_model(), d, w.training)) parameters += part.parameters;
  const auto bytes = [&](int stage) {
    w.training.zero_stage = stage;
    const TrainingMemory memory = training_memory(small_moe_model(), d, w);
    const double weights = 2 * parameters - memory.weights_elsewhere.value();
    return (weights + memory.gradients.value() + memory.optimizer_states.value()) / parameters;
  };
  EXPECT_NEAR(bytes(0), 16, 1e-9);
  EXPECT_NEAR(bytes(1), 4 + 12.0 / 8, 1e-9);
  EXPECT_NEAR(bytes(2), 2 + 14.0 / 8, 1e-9);
  EXPECT_NEAR(bytes(3), 16.0 / 8, 1e-9);
  // The layer at hand is there as a whole: attention, norms, router and experts.
  const double layer = 64 * (4 + 2 * 2) * 16 + 4 * 16 * 64 + 3 * 64 + 8 * 64 + 8 * 3 * 64 * 32;
  EXPECT_NEAR(training_memory(small_moe_model(), d, w).gathered.value(), 2 * layer * 7 / 8, 2 * 64 * 7 / 8.0);
  // Of the whole answer: weights fall, what is gathered is workspace.
  const MemoryBreakdown shared = memory_per_rank(small_moe_model(), d, w);
  w.training.zero_stage = 2;
  const MemoryBreakdown whole = memory_per_rank(small_moe_model(), d, w);
  EXPECT_NEAR((whole.weights - shared.weights).value(), 2 * parameters * 7 / 8, 1e-6);
  EXPECT_GT(shared.workspace, whole.workspace);
}

TEST(TrainingMemory, KeepsWhatGradientsNeedAgain) {
  // 8 sequences of 4 tokens, fp32; a layer keeps
  const double tokens = 32;
  const double attention = tokens * (64 + 64)                 // the norm's input and its result
                           + tokens * (4 * 16 + 2 * 2 * 16)   // queries, keys, values
                           + tokens * (4 * 16 + 4);           // result and a sum a head
  const double moe = tokens * (64 + 64) + tokens * 8          // norm and its result; scores
                     + tokens * 2                             // positions
                     + tokens * 2 * (64 + 2 * 32 + 32 + 64);  // rows into and through the experts, and out
  const double ends = tokens * (1 + 64 + 64 + 100);           // words, norm and its result, probabilities
  const Workload w = training_step(8, 4);
  EXPECT_DOUBLE_EQ(training_memory(small_moe_model(), {}, w).saved_activations.value(),
                   4 * (3 * (attention + moe) + ends));
}

TEST(TrainingMemory, RecomputationAndMicroBatchesKeepLess) {
  Workload w = training_step(8, 64);
  const auto saved = [&](Recomputation mode, std::int64_t parts) {
    w.training.recomputation = mode;
    w.training.accumulation = parts;
    return training_memory(small_moe_model(), {}, w).saved_activations.value();
  };
  const double none = saved(Recomputation::none, 1);
  EXPECT_LT(saved(Recomputation::selective, 1), none);
  EXPECT_LT(saved(Recomputation::full, 1), saved(Recomputation::selective, 1));
  EXPECT_DOUBLE_EQ(saved(Recomputation::none, 4), none / 4);
  // Full: the inputs of three layers, one layer while it is computed again, and the ends.
  const double tokens = 8 * 64;
  const double layer = tokens * (128 + 128 + 68 + 128 + 8 + 2 + 2 * (64 + 64 + 32 + 64));
  EXPECT_DOUBLE_EQ(saved(Recomputation::full, 1), 4 * (3 * tokens * 64 + layer + tokens * (1 + 128 + 100)));
}

TEST(TrainingMemory, AnAttackKeepsNoWeightsButActivations_A15) {
  Workload w = training_step(8, 4);
  const TrainingMemory training = training_memory(small_moe_model(), {}, w);
  w.training = attack_plan(10);
  const TrainingMemory attack = training_memory(small_moe_model(), {}, w);
  EXPECT_EQ(attack.gradients.value(), 0);
  EXPECT_EQ(attack.optimizer_states.value(), 0);
  EXPECT_GT(attack.saved_activations.value(), 0);
  EXPECT_LT(attack.saved_activations, training.saved_activations);
  w.training = attack_plan(20);  // one pass after the other
  EXPECT_EQ(training_memory(small_moe_model(), {}, w).saved_activations, attack.saved_activations);
}

}  // namespace
}  // namespace moecast
