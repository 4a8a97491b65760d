#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <string>

#include "models/architecture/accounting.h"
#include "models/architecture/dense_twin.h"
#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/plan/graph.h"
#include "sim/analytic/training_run.h"
#include "sim/make_predictor.h"
#include "tests/support/small_models.h"
#include "tests/support/synthetic_calibration.h"

namespace moecast {
namespace {

/// A CPU of 25 GB whose GEMMs and loops follow made-up laws.
const Predictor& machine() {
  static const std::unique_ptr<Predictor> predictor = [] {
    Profile profile = synthetic_profile();
    std::vector<Measurement> points = synthetic_gemms("eigen", DType::fp32, 1, 120, 3);
    for (const Measurement& stage : synthetic_stages(DType::fp32, 1, 40, 5)) points.push_back(stage);
    auto calibration = std::make_shared<const Calibration>(calibrate(profile, points));
    return make_predictor(std::move(profile), std::move(calibration));
  }();
  return *predictor;
}

Deployment on_eigen() {
  Deployment d;
  d.backend = "eigen";
  d.dtype = DType::fp32;
  return d;
}

Prediction run(const Workload& w, const Architecture& a = small_moe_model()) {
  Prediction p = machine().predict(a, on_eigen(), w);
  EXPECT_EQ(p.status, Status::ok) << p.reason;
  return p;
}

Seconds phase(const Prediction& p, TrainingPhase phase) { return p.training->latency[static_cast<std::size_t>(phase)]; }

TEST(TrainingStep, PhasesSumToTheWhole_A19) {
  for (const Recomputation mode : {Recomputation::none, Recomputation::selective, Recomputation::full}) {
    for (const std::int64_t parts : {1, 4}) {
      Workload w = training_step(8, 32);
      w.training.recomputation = mode;
      w.training.accumulation = parts;
      const Prediction p = run(w);
      ASSERT_TRUE(p.training);
      Seconds sum;
      Flops flops;
      for (std::size_t i = 0; i < kTrainingPhases; ++i) {
        sum += p.training->latency[i];
        flops += p.training->flops[i];
      }
      // 1e-12: the order of additions.
      EXPECT_NEAR(sum / *p.latency, 1, 1e-12);
      EXPECT_NEAR(flops / *p.flops, 1, 1e-12);
      EXPECT_GT(phase(p, TrainingPhase::forward).value(), 0);
      EXPECT_GT(phase(p, TrainingPhase::optimizer).value(), 0);
      EXPECT_EQ(phase(p, TrainingPhase::recompute).value() > 0, mode != Recomputation::none);
      EXPECT_EQ(phase(p, TrainingPhase::gradient_reduction).value(), 0);  // one replica
      EXPECT_NEAR(*p.throughput_tokens_per_s, 8 * 32 / p.latency->value(), 1e-6);
      EXPECT_LT(*p.low, *p.latency);
      EXPECT_GT(*p.high, *p.latency);
      EXPECT_EQ(p.origin, Origin::extrapolated);  // no profile measures gradients
    }
  }
}

TEST(TrainingStep, MoreToDoNeverTakesLess) {
  Workload w = training_step(4, 32);
  const Seconds once = *run(w).latency;
  w.batch = 8;
  EXPECT_GT(*run(w).latency, once);
  w.batch = 4;
  for (const auto& change : std::vector<std::function<void(TrainingPlan&)>>{
           [](TrainingPlan& p) { p.recomputation = Recomputation::selective; },
           [](TrainingPlan& p) { p.recomputation = Recomputation::full; },
           [](TrainingPlan& p) { p.accumulation = 4; },  // smaller GEMMs, and gradients added up
           [](TrainingPlan& p) { p.input_gradient = true; }}) {
    Workload more = w;
    change(more.training);
    EXPECT_GE(*run(more).latency, once);
  }
  Workload plain = w;
  plain.training.optimizer = Optimizer::sgd;
  EXPECT_LT(*run(plain).latency, once);
  for (std::size_t part = 0; part < kModelParts; ++part) {
    Workload less = w;
    less.training.frozen[part] = true;
    EXPECT_LE(*run(less).latency, once) << part;
  }
}

TEST(TrainingStep, AFrozenPartSavesItsWeightGradientsAndItsUpdateExactly_C14) {
  Workload w = training_step(8, 32);
  const Prediction all = run(w);
  Seconds own;
  for (const OperatorCost& op : all.operators) {
    const bool gradient = op.name.find(".experts.") != std::string::npos && op.name.ends_with(".weight_gradient");
    if (gradient || op.name == "optimizer.experts") own += op.latency;
  }
  ASSERT_GT(own.value(), 0);
  freeze(w, ModelPart::experts);
  const Prediction frozen = run(w);
  // Its own costs are gone, and no more but that what is left runs through fewer bytes: its weights are warmer by the
  // share of the caches' law that so small a model sees (0.1 %).
  constexpr double kWarmer = 0.005;
  for (const OperatorCost& op : frozen.operators) {
    EXPECT_FALSE(op.name.ends_with("optimizer.experts"));
  }
  EXPECT_EQ(all.operators.size() - frozen.operators.size(), 3U);  // gate_up, down, update
  const Seconds rest = *all.latency - own;
  EXPECT_LE(*frozen.latency, rest * (1 + 1e-12));
  EXPECT_GE(*frozen.latency, rest * (1 - kWarmer));
  EXPECT_DOUBLE_EQ(all.training->trained_parameters - frozen.training->trained_parameters, 3.0 * 8 * 3 * 64 * 32);
}

TEST(TrainingStep, PgdCostsItsStepsTimesFgsm_A15) {
  Workload w = training_step(8, 32);
  w.training = attack_plan(1);
  const Prediction fgsm = run(w);
  const Seconds forward = phase(fgsm, TrainingPhase::forward);
  EXPECT_NEAR((forward + phase(fgsm, TrainingPhase::backward)) / *fgsm.latency, 1, 1e-12);
  for (const std::int64_t steps : {2, 7, 40}) {
    w.training = attack_plan(steps);
    EXPECT_NEAR(*run(w).latency / *fgsm.latency, static_cast<double>(steps), 1e-9);
  }
  EXPECT_EQ(fgsm.training->trained_parameters, 0);
}

TEST(TrainingStep, MixtralNeedsSixteenBytesAParameter_C14) {
  const Prediction p =
      machine().predict(load_zoo(MOECAST_SOURCE_DIR "/models/zoo", "mixtral-8x7b"), on_eigen(), training_step(1, 128));
  // fp32: 4 of the weight, 4 of its gradient, 8 of Adam's states; 46.7 billion parameters.
  EXPECT_GT(p.memory.total().value(), 16 * 46.7e9);
  EXPECT_NEAR(p.memory.optimizer_states / p.memory.gradients, 2, 1e-9);
}

TrainingStage stage(const char* name, std::int64_t steps, const Workload& w) {
  return {name, steps, step_tokens(w), 1, run(w)};
}

TEST(TrainingRun, TwoPhasesTakeTheSumOfTheirSteps_A19) {
  Workload pretrain = training_step(8, 32);
  freeze_all_but(pretrain, ModelPart::experts);
  const Workload joint = training_step(8, 32);
  const TrainingRun staged = training_run({stage("experts", 2000, pretrain), stage("joint", 500, joint)}, 1);
  const double first = 2000 * run(pretrain).latency->value();
  const double second = 500 * run(joint).latency->value();
  EXPECT_DOUBLE_EQ(staged.stages[0].wall_clock->value(), first);
  EXPECT_DOUBLE_EQ(staged.total.wall_clock->value(), first + second);
  EXPECT_NEAR(*staged.total.device_hours, (first + second) / 3600, 1e-12);
  EXPECT_EQ(staged.total.tokens, 2500.0 * 8 * 32);
  // D5: as many steps, all joint, take longer.
  EXPECT_LT(*staged.total.wall_clock, *training_run({stage("joint", 2500, joint)}, 1).total.wall_clock);
}

TEST(TrainingRun, JointTakesLongerThanStagedOfTheSameSteps_D5) {
  Workload router = training_step(8, 32);
  freeze_all_but(router, ModelPart::router);
  const Workload joint = training_step(8, 32);
  const auto staged = training_run({stage("router", 100, router), stage("joint", 100, joint)}, 1);
  const auto all = training_run({stage("joint", 200, joint)}, 1);
  EXPECT_LT(*staged.total.wall_clock, *all.total.wall_clock);
  EXPECT_EQ(staged.total.tokens, all.total.tokens);
}

TEST(TrainingRun, RouterAndExpertsInTurn_C20) {
  Workload router = training_step(8, 32);
  freeze_all_but(router, ModelPart::router);
  Workload experts = training_step(8, 32);
  freeze(experts, ModelPart::router);
  const std::vector<TrainingStage> stages{stage("router", 10, router), stage("experts", 10, experts)};
  const TrainingRun one = training_run(stages, 1);
  const TrainingRun many = training_run(stages, 30);
  EXPECT_NEAR(*many.total.wall_clock / *one.total.wall_clock, 30, 1e-9);
  EXPECT_LT(*many.stages[0].wall_clock, *many.stages[1].wall_clock);
  EXPECT_EQ(many.total.steps, 600);
}

TEST(TrainingRun, AnUnknownStepMakesTheWholeUnknownAndImpossibleOnesAreRefused) {
  TrainingStage known = stage("known", 1, training_step(8, 32));
  TrainingStage unknown = known;
  unknown.step.latency.reset();
  const TrainingRun run = training_run({known, unknown}, 1);
  EXPECT_FALSE(run.total.wall_clock);
  EXPECT_FALSE(run.total.device_hours);
  EXPECT_TRUE(run.stages[0].wall_clock);
  EXPECT_THROW(static_cast<void>(training_run({}, 1)), InputError);
  EXPECT_THROW(static_cast<void>(training_run({known}, 0)), InputError);
  known.steps = -3;
  EXPECT_THROW(static_cast<void>(training_run({known}, 1)), InputError);
}

/// Models without a time on this CPU, and why: nothing of these was measured on it, or there is no operator yet.
const std::map<std::string, std::string> kUntimed{{"deepseek-v4-flash", "hash router"},
                                                  {"deepseek-v4-pro", "hash router"},
                                                  {"jamba", "state_space.conv"},
                                                  {"kimi-k3", "attention.conv"},
                                                  {"minimax-m1", "attention.state"},
                                                  {"minimax-text-01", "attention.state"},
                                                  {"nemotron-3-nano-30b-a3b", "state_space.conv"},
                                                  {"nemotron-3-super-120b-a12b", "state_space.conv"},
                                                  {"qwen3-next-80b-a3b", "attention.conv"},
                                                  {"qwen3.5-122b-a10b", "attention.conv"},
                                                  {"qwen3.5-35b-a3b", "attention.conv"},
                                                  {"qwen3.5-397b-a17b", "attention.conv"},
                                                  {"qwen3.6-35b-a3b", "attention.conv"}};
TEST(DenseTwin, SpeedUpIsComputedForEveryModel_C7) {
  const std::string zoo = MOECAST_SOURCE_DIR "/models/zoo";
  std::set<std::string> untimed;
  Without without;
  without.memory_capacity = true;  // a CPU of 25 GB
  for (const std::string& name : zoo_names(zoo)) {
    const Architecture a = load_zoo(zoo, name);
    if (count_parameters(a).routed_experts == 0) continue;  // dense models of the zoo
    Workload w;
    w.phase = a.decoder.empty() ? Phase::encode : Phase::prefill;
    w.batch = 4;
    w.prompt = 128;
    const Prediction own = machine().predict(a, on_eigen(), w, without);
    if (!own.latency) {
      untimed.insert(name);
      EXPECT_TRUE(kUntimed.contains(name)) << name << ": " << own.reason;
      if (kUntimed.contains(name)) {
        EXPECT_NE(own.reason.find(kUntimed.at(name)), std::string::npos) << name << ": " << own.reason;
      }
      continue;
    }
    const auto latency = [&](Matched matched) {
      return machine().predict(dense_twin(a, matched), on_eigen(), w, without).latency;
    };
    const auto flops = latency(Matched::flops);
    const auto parameters = latency(Matched::parameters);
    ASSERT_TRUE(flops && parameters) << name;
    // As many weights for every token: never less work than the same for few of them.
    EXPECT_GE(*parameters, *flops) << name;
    EXPECT_GT(*parameters, *own.latency) << name;
  }
  EXPECT_EQ(untimed.size(), kUntimed.size()) << "a model that has a time now, or is gone, is no exception any more";
}

}  // namespace
}  // namespace moecast
