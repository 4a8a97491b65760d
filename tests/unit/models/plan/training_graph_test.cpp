#include "models/plan/training_graph.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/plan/graph.h"
#include "tests/support/small_models.h"

namespace moecast {
namespace {

double flops(const OperatorGraph& graph, TrainingPhase phase) {
  double sum = 0;
  for (const Operator& op : graph.operators) sum += op.phase == phase ? op.flops.value() * op.count : 0;
  return sum;
}

std::vector<Operator> named(const OperatorGraph& graph, const std::string& end) {
  std::vector<Operator> found;
  for (const Operator& op : graph.operators) {
    if (op.name.ends_with(end)) found.push_back(op);
  }
  return found;
}

Operator only(const OperatorGraph& graph, const std::string& end) {
  const auto found = named(graph, end);
  EXPECT_EQ(found.size(), 1U) << end;
  return found.empty() ? Operator{} : found.front();
}

/// Executions by name.
std::map<std::string, double> executions(const OperatorGraph& graph) {
  std::map<std::string, double> counts;
  for (const Operator& op : graph.operators) counts[op.name] += op.count;
  return counts;
}

const double kRouter = 2.0 * 16 * 64 * 8;           // 16 tokens
const double kExpertRows = 2.0 * 16 * 2 * 64 * 32;  // one matrix over 32 rows

TEST(TrainingGraph, BackwardIsTwiceTheForwardArithmetic_A19) {
  Workload w = training_step(16, 1);
  w.training.input_gradient = true;
  const OperatorGraph graph = build_graph(small_moe_layer(), {}, w);
  const double forward = kRouter + 3 * kExpertRows;
  EXPECT_DOUBLE_EQ(flops(graph, TrainingPhase::forward), forward);
  EXPECT_DOUBLE_EQ(flops(graph, TrainingPhase::backward), 2 * forward);
  EXPECT_EQ(flops(graph, TrainingPhase::recompute), 0);
}

TEST(TrainingGraph, GemmsHaveTheGradientsOfBothOperands_A19) {
  Workload w = training_step(16, 1);
  w.training.input_gradient = true;
  const OperatorGraph graph = build_graph(small_moe_layer(), {}, w);
  const Operator data = only(graph, ".router.input_gradient");
  EXPECT_EQ(data.shape.m, 16);
  EXPECT_EQ(data.shape.n, 64);  // back from the 8 scores to the 64 columns of a token
  EXPECT_EQ(data.shape.k, 8);
  const Operator weight = only(graph, ".router.weight_gradient");
  EXPECT_EQ(weight.shape.m, 64);
  EXPECT_EQ(weight.shape.n, 8);
  EXPECT_EQ(weight.shape.k, 16);  // summed over the tokens
  const Operator up = only(graph, ".gate_up.input_gradient");
  EXPECT_EQ(up.shape.n, 64);
  EXPECT_EQ(up.shape.k, 2 * 32);
  EXPECT_FALSE(up.ragged_depth);
  const Operator ragged = only(graph, ".gate_up.weight_gradient");
  EXPECT_EQ(ragged.shape.m, 64);
  EXPECT_EQ(ragged.shape.n, 2 * 32);
  EXPECT_TRUE(ragged.ragged_depth);  // rows of an expert are the depth
  double rows = 0;
  for (const RowGroup& group : ragged.rows) rows += group.rows * group.experts;
  EXPECT_NEAR(rows, 32, 1e-9);
}

TEST(TrainingGraph, NothingBelowALoneBlockWantsItsInputsGradient_C14) {
  const OperatorGraph graph = build_graph(small_moe_layer(), {}, training_step(16, 1));
  // All weights' gradients, and of inputs those of the down projection alone: router and up read the block's input.
  EXPECT_DOUBLE_EQ(flops(graph, TrainingPhase::backward), kRouter + 3 * kExpertRows + kExpertRows);
  EXPECT_TRUE(named(graph, ".router.input_gradient").empty());
  EXPECT_TRUE(named(graph, ".gate_up.input_gradient").empty());
  EXPECT_TRUE(named(graph, ".permute.gradient").empty());
}

TEST(TrainingGraph, AFrozenPartDropsItsWeightGradientsAndItsOptimizerExactly_C14) {
  for (const auto& [part, word] : std::map<ModelPart, std::string>{{ModelPart::experts, ".experts."},
                                                                   {ModelPart::router, ".moe.router"},
                                                                   {ModelPart::attention, ".attention."}}) {
    Workload w = training_step(8, 4);
    w.training.accumulation = 2;
    w.training.replicas = 2;
    auto all = executions(build_graph(small_moe_model(), {}, w));
    freeze(w, part);
    const auto frozen = executions(build_graph(small_moe_model(), {}, w));
    int dropped = 0;
    for (const auto& [name, count] : all) {
      const bool own = (name.ends_with(".weight_gradient") && name.find(word) != std::string::npos) ||
                       name == "optimizer." + std::string(to_string(part)) ||
                       name == "gradients." + std::string(to_string(part)) ||
                       name == "accumulate." + std::string(to_string(part));
      EXPECT_EQ(frozen.contains(name), !own) << name;
      // The embedding below is trained: every other gradient is still wanted, as often.
      if (!own) {
        EXPECT_DOUBLE_EQ(frozen.at(name), count) << name;
      }
      dropped += own ? 1 : 0;
    }
    EXPECT_GE(dropped, 4) << word;
    EXPECT_EQ(frozen.size() + static_cast<std::size_t>(dropped), all.size());
  }
}

TEST(TrainingGraph, BackwardStopsAtTheLowestTrainedPart_C14) {
  Workload w = training_step(4, 8);
  freeze_all_but(w, ModelPart::head);
  const OperatorGraph head = build_graph(small_moe_model(), {}, w);
  std::set<std::string> backward;
  for (const Operator& op : head.operators) {
    if (op.phase == TrainingPhase::backward) backward.insert(op.name);
  }
  EXPECT_EQ(backward, (std::set<std::string>{"loss.gradient", "head.weight_gradient"}));

  freeze_all_but(w, ModelPart::experts);
  const OperatorGraph experts = build_graph(small_moe_model(), {}, w);
  // Three layers: nothing is trained below the experts of the lowest, so that its attention has no gradient.
  EXPECT_EQ(only(experts, ".attention.core.gradient").count, 2);
  EXPECT_EQ(only(experts, ".gate_up.input_gradient").count, 2);
  EXPECT_EQ(only(experts, ".down.input_gradient").count, 3);
  EXPECT_EQ(only(experts, ".gate_up.weight_gradient").count, 3);
  EXPECT_TRUE(named(experts, ".router.weight_gradient").empty());

  freeze_all_but(w, ModelPart::router);
  const OperatorGraph router = build_graph(small_moe_model(), {}, w);
  // A router's gradient comes from the combination: the experts of the lowest layer pass none on.
  EXPECT_EQ(only(router, ".router.weight_gradient").count, 3);
  EXPECT_EQ(only(router, ".gate_gradient").count, 3);
  EXPECT_EQ(only(router, ".down.input_gradient").count, 2);
}

TEST(TrainingGraph, AttentionDoesFiveProductsInsteadOfTwo) {
  const OperatorGraph graph = build_graph(small_moe_model(), {}, training_step(2, 8));
  const Operator forward = only(graph, ".attention.core");
  const Operator backward = only(graph, ".attention.core.gradient");
  // 2 sequences, 8 * 9 / 2 visible keys, 4 heads, 2 products of 16 columns, 2 operations each.
  EXPECT_DOUBLE_EQ(forward.flops.value(), 2.0 * 36 * 4 * 2 * 16 * 2);
  EXPECT_DOUBLE_EQ(backward.flops / forward.flops, 2.5);
  EXPECT_DOUBLE_EQ(backward.work, 2.5);
  // Latent attention: keys of 24 columns, values of 16: 3 * 24 + 2 * 16 against 24 + 16.
  Architecture latent = small_moe_model();
  for (Layer& layer : latent.decoder) {
    auto& block = std::get<AttentionBlock>(layer.blocks.front());
    block.kind = AttentionKind::latent;
    block.latent = LatentSpec{0, 32, 16, 8, 16};
  }
  const OperatorGraph expanded = build_graph(latent, {}, training_step(2, 8));
  EXPECT_DOUBLE_EQ(only(expanded, ".attention.core.gradient").flops / only(expanded, ".attention.core").flops,
                   (3.0 * 24 + 2 * 16) / (24 + 16));
}

TEST(TrainingGraph, ExchangesBetweenExpertParallelRanksHappenAgainReversed) {
  Deployment d;
  d.ep = d.dp = 4;
  Workload w = training_step(16, 4);
  w.training.recomputation = Recomputation::full;
  const OperatorGraph graph = build_graph(small_moe_model(), d, w);
  std::map<std::pair<OperatorKind, TrainingPhase>, double> bytes;
  for (const Operator& op : graph.operators) {
    bytes[{op.kind, op.phase}] += static_cast<double>(op.shape.bytes) * op.count;
  }
  using K = OperatorKind;
  using P = TrainingPhase;
  // 16 tokens of a rank, 2 experts each, 64 fp32 columns, three quarters of them elsewhere; three layers.
  const double once = 3 * 16.0 * 2 * 64 * 4 * 3 / 4;
  for (const P phase : {P::forward, P::recompute, P::backward}) {
    const double dispatched = bytes[std::make_pair(K::all_to_all_dispatch, phase)];
    const double combined = bytes[std::make_pair(K::all_to_all_combine, phase)];
    EXPECT_DOUBLE_EQ(dispatched, once) << to_string(phase);
    EXPECT_DOUBLE_EQ(combined, once) << to_string(phase);
  }
}

TEST(TrainingGraph, ExpertsAreReducedOverTheRanksThatHoldThem) {
  Deployment d;
  d.ep = d.dp = 4;
  Workload w = training_step(32, 4);
  w.training.replicas = 2;
  const OperatorGraph graph = build_graph(small_moe_model(), d, w);
  const Operator experts = only(graph, "gradients.experts");
  EXPECT_EQ(experts.kind, OperatorKind::all_reduce);
  EXPECT_EQ(experts.shape.ranks, 2);
  EXPECT_EQ(experts.shape.bytes, 3 * 8 / 4 * 3 * 64 * 32 * 4);  // layers, experts of a rank, matrices, fp32
  const Operator attention = only(graph, "gradients.attention");
  EXPECT_EQ(attention.shape.ranks, 8);
  EXPECT_EQ(attention.shape.bytes, 3 * (64 * (4 + 2 * 2) * 16 + 4 * 16 * 64) * 4);
  w.training.replicas = 1;
  const OperatorGraph alone = build_graph(small_moe_model(), d, w);
  EXPECT_TRUE(named(alone, "gradients.experts").empty());  // each expert is on one rank only
  EXPECT_EQ(only(alone, "gradients.attention").shape.ranks, 4);
  w.training.replicas = 2;
  w.training.zero_stage = 1;
  const OperatorGraph shared = build_graph(small_moe_model(), d, w);
  EXPECT_EQ(only(shared, "gradients.attention").kind, OperatorKind::reduce_scatter);
  EXPECT_EQ(only(shared, "optimizer.attention.gather").kind, OperatorKind::all_gather);
  EXPECT_NEAR(
      only(shared, "optimizer.attention").activation_bytes / only(graph, "optimizer.attention").activation_bytes,
      1.0 / 8, 1e-12);
}

TEST(TrainingGraph, MicroBatchesDoTheSameArithmeticAndOneUpdate) {
  Workload w = training_step(8, 4);
  // Capacity of rows is a matter of expectation: the same tokens meet the same experts in four parts.
  const OperatorGraph whole = build_graph(small_moe_model(), {}, w);
  w.training.accumulation = 4;
  const OperatorGraph parts = build_graph(small_moe_model(), {}, w);
  for (const TrainingPhase phase : {TrainingPhase::forward, TrainingPhase::backward}) {
    EXPECT_NEAR(flops(parts, phase) / flops(whole, phase), 1, 1e-9) << to_string(phase);
  }
  EXPECT_EQ(only(parts, "layers.0.attention.qkv").count, 3 * 4);
  EXPECT_EQ(only(parts, "layers.0.attention.qkv").shape.m, 8);
  EXPECT_EQ(only(parts, "optimizer.experts").count, 1);
  EXPECT_EQ(only(parts, "accumulate.experts").count, 3);
  EXPECT_TRUE(named(whole, "accumulate.experts").empty());
}

TEST(TrainingGraph, OptimizersSweepWhatTheyKeep) {
  const double weights = 3.0 * 8 * 3 * 64 * 32;
  Workload w = training_step(8, 4);
  const auto bytes = [&](Optimizer optimizer, DType dtype) {
    Deployment d;
    d.dtype = dtype;
    w.training.optimizer = optimizer;
    return only(build_graph(small_moe_model(), d, w), "optimizer.experts").activation_bytes.value() / weights;
  };
  EXPECT_NEAR(bytes(Optimizer::sgd, DType::fp32), 4 + 8, 1e-9);            // gradient; weight in and out
  EXPECT_NEAR(bytes(Optimizer::momentum, DType::fp32), 4 + 8 + 8, 1e-9);   // and one state
  EXPECT_NEAR(bytes(Optimizer::adam, DType::fp32), 4 + 8 + 16, 1e-9);      // and two
  EXPECT_NEAR(bytes(Optimizer::adam, DType::bf16), 2 + 16 + 8 + 2, 1e-9);  // fp32 copy in and out, bf16 weight out
}

TEST(TrainingGraph, RecomputationRunsTheForwardPassOfTheLayersAgain) {
  Workload w = training_step(8, 4);
  w.training.recomputation = Recomputation::full;
  const OperatorGraph full = build_graph(small_moe_model(), {}, w);
  const double head = 2.0 * 32 * 64 * 100;
  EXPECT_NEAR(flops(full, TrainingPhase::recompute), flops(full, TrainingPhase::forward) - head, 1e-3);
  w.training.recomputation = Recomputation::selective;
  const OperatorGraph selective = build_graph(small_moe_model(), {}, w);
  EXPECT_DOUBLE_EQ(flops(selective, TrainingPhase::recompute), 3 * only(selective, ".attention.core").flops.value());
  EXPECT_EQ(only(selective, ".experts.activation.again").count, 3);
}

TEST(TrainingGraph, AnAttackTakesGradientsOfInputsOnlyAndIsLinearInItsSteps_A15) {
  Workload w = training_step(8, 4);
  w.training = attack_plan(1);
  const OperatorGraph fgsm = build_graph(small_moe_model(), {}, w);
  const double forward = flops(fgsm, TrainingPhase::forward);
  const double core = 3 * only(fgsm, ".attention.core").flops.value();
  // One forward pass and the gradients of inputs: as much again for GEMMs, 2.5 times as much for attention cores.
  EXPECT_DOUBLE_EQ(flops(fgsm, TrainingPhase::backward), forward - core + 2.5 * core);
  EXPECT_TRUE(named(fgsm, ".weight_gradient").empty());
  EXPECT_EQ(flops(fgsm, TrainingPhase::optimizer), 0);
  for (const std::int64_t steps : {2, 10, 40}) {
    w.training = attack_plan(steps);
    const OperatorGraph pgd = build_graph(small_moe_model(), {}, w);
    ASSERT_EQ(pgd.operators.size(), fgsm.operators.size());
    for (std::size_t i = 0; i < pgd.operators.size(); ++i) {
      EXPECT_DOUBLE_EQ(pgd.operators[i].count, fgsm.operators[i].count * static_cast<double>(steps));
    }
  }
}

TEST(TrainingGraph, TrainsWithTheCapacityOfTraining) {
  Architecture a = small_moe_layer();
  auto& capacity = std::get<MoeBlock>(a.decoder[0].blocks[0]).capacity;
  capacity.train_factor = 0.5;
  capacity.eval_factor = 2;
  Workload w = training_step(32, 1);
  w.rows_per_expert.assign(8, 8);
  EXPECT_EQ(only(build_graph(a, {}, w), ".experts.gate_up").shape.m, 32);  // half of 64 rows
  w.phase = Phase::prefill;
  EXPECT_EQ(only(build_graph(a, {}, w), ".experts.gate_up").shape.m, 64);
}

TEST(TrainingGraph, EveryModelOfTheZooHasAStepOrSaysWhatIsMissing) {
  const std::string zoo = MOECAST_SOURCE_DIR "/models/zoo";
  int whole = 0;
  for (const std::string& name : zoo_names(zoo)) {
    const Architecture a = load_zoo(zoo, name);
    const OperatorGraph graph = build_graph(a, {}, training_step(2, 128));
    for (const std::string& missing : graph.not_executed) {
      EXPECT_NE(missing.find("not supported yet"), std::string::npos) << name;
    }
    if (!graph.not_executed.empty()) continue;
    double cores = 0;
    double more = 0;  // what the gradients of attention cores do beyond twice the forward pass
    for (const Operator& op : graph.operators) {
      if (op.phase != TrainingPhase::forward || op.backward_flops.value() <= 0) continue;
      cores += op.flops.value() * op.count;
      more += (op.backward_flops.value() - 2 * op.flops.value()) * op.count;
    }
    const double forward = flops(graph, TrainingPhase::forward);
    // Tiny models without an embedding have no gradient of their input.
    const double floor = a.vocabulary > 0 ? 1 - 1e-9 : 0.5;
    EXPECT_LE(flops(graph, TrainingPhase::backward), (2 * forward + more) * (1 + 1e-9)) << name;
    EXPECT_GE(flops(graph, TrainingPhase::backward), (2 * forward + more) * floor) << name;
    ++whole;
  }
  EXPECT_GT(whole, 40);
}

TEST(TrainingPlan, ImpossiblePlansSayWhatIsWrong) {
  const auto where = [](const std::function<void(TrainingPlan&, Deployment&)>& change) -> std::string {
    Workload w = training_step(8, 4);
    Deployment d;
    change(w.training, d);
    try {
      static_cast<void>(build_graph(small_moe_model(), d, w));
    } catch (const InputError& error) {
      return error.where();
    }
    return "nothing thrown";
  };
  EXPECT_EQ(where([](TrainingPlan& p, Deployment&) { p.accumulation = 0; }), "accumulation");
  EXPECT_EQ(where([](TrainingPlan& p, Deployment&) { p.accumulation = 3; }), "batch");
  EXPECT_EQ(where([](TrainingPlan& p, Deployment&) { p.replicas = -1; }), "replicas");
  EXPECT_EQ(where([](TrainingPlan& p, Deployment&) { p.frozen.fill(true); }), "frozen");
  EXPECT_EQ(where([](TrainingPlan& p, Deployment&) { p.zero_stage = 4; }), "zero_stage");
  EXPECT_EQ(where([](TrainingPlan& p, Deployment&) { p.passes = 2; }), "passes");
  EXPECT_EQ(where([](TrainingPlan&, Deployment& d) { d.pp = 3; }), "pp");
  EXPECT_THROW(static_cast<void>(attack_plan(0)), InputError);
}

}  // namespace
}  // namespace moecast
