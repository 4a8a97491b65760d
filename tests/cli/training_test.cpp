#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

const std::vector<std::string> kLayer{"--hw",      "intel-xeon-processor-2cpu",
                                      "--hidden",  "512",
                                      "--width",   "1024",
                                      "--experts", "8",
                                      "--top-k",   "2",
                                      "--tokens",  "256"};

Finished layer(const std::string& command, std::vector<std::string> more) {
  std::vector<std::string> words{command};
  words.insert(words.end(), kLayer.begin(), kLayer.end());
  words.insert(words.end(), more.begin(), more.end());
  return run_moecast(words);
}

Json answer(const std::string& command, std::vector<std::string> more) {
  more.insert(more.end(), {"--format", "json"});
  const Finished finished = layer(command, std::move(more));
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

void refused(const Finished& finished, const std::string& flag, const std::string& hint) {
  EXPECT_EQ(finished.code, 2) << finished.err;
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, HasSubstr(flag));
  EXPECT_THAT(finished.err, HasSubstr(hint));
}

TEST(PredictTraining, PhasesSumToTheLatencyAndSayWhatWasAssumed_A19) {
  const Json a = answer("predict", {"--phase", "train", "--accumulation", "2"});
  ASSERT_EQ(a.at("status"), "ok") << a.at("reason");
  double sum = 0;
  for (const Json& phase : a.at("training").at("phases")) sum += phase.at("latency_s").get<double>();
  EXPECT_NEAR(sum / a.at("latency_s").get<double>(), 1, 1e-12);
  std::vector<std::string> names;
  for (const Json& phase : a.at("training").at("phases")) names.push_back(phase.at("name"));
  EXPECT_EQ(names, (std::vector<std::string>{"forward", "recompute", "backward", "gradient_reduction", "optimizer"}));
  EXPECT_EQ(a.at("training").at("trained_parameters"), 512 * 8 + 8 * 3 * 512 * 1024);
  EXPECT_NEAR(a.at("training").at("device_hours").get<double>(), a.at("latency_s").get<double>() / 3600, 1e-15);
  const Json& memory = a.at("memory_per_rank");
  EXPECT_EQ(memory.at("gradients_bytes"),
            memory.at("weights_bytes").get<double>() - 512 * 2);  // bf16, and no norm to train
  EXPECT_GT(memory.at("saved_activations_bytes"), 0);
  EXPECT_EQ(a.at("inputs").at("optimizer"), "adam");
  EXPECT_EQ(a.at("inputs").at("accumulation"), 2);
  EXPECT_THAT(a.at("inputs").at("defaults").get<std::vector<std::string>>(), testing::Contains("optimizer"));
  EXPECT_EQ(a.at("operators").front().at("phase"), "forward");
  EXPECT_EQ(a.at("operators").back().at("phase"), "optimizer");
  const Finished table = layer("predict", {"--phase", "train"});
  EXPECT_THAT(table.out, HasSubstr("backward"));
  EXPECT_THAT(table.out, HasSubstr("gradients"));
}

TEST(PredictTraining, InferenceSaysNothingOfTraining) {
  const Json a = answer("predict", {});
  EXPECT_FALSE(a.contains("training"));
  EXPECT_FALSE(a.at("memory_per_rank").contains("gradients_bytes"));
  EXPECT_FALSE(a.at("inputs").contains("accumulation"));
}

TEST(PredictTraining, RangesWorkOnItsCounts) {
  const Json answers = answer("predict", {"--phase", "train", "--accumulation", "1,2,4"});
  ASSERT_EQ(answers.size(), 3U);
  EXPECT_LT(answers.at(2).at("memory_per_rank").at("saved_activations_bytes"),
            answers.at(0).at("memory_per_rank").at("saved_activations_bytes"));
}

TEST(PredictTraining, AnAttackOfTenStepsCostsTenOfOne_A15) {
  const double one = answer("predict", {"--phase", "train", "--attack", "fgsm"}).at("latency_s");
  const double ten = answer("predict", {"--phase", "train", "--attack", "pgd:10"}).at("latency_s");
  EXPECT_NEAR(ten / one, 10, 1e-9);
}

TEST(PredictTraining, BadInputSaysTheFlagAndTheRemedy) {
  refused(layer("predict", {"--phase", "train", "--freeze", "expert"}), "--freeze", "did you mean \"experts\"?");
  refused(layer("predict", {"--phase", "train", "--freeze", "all"}), "--freeze", "leaves nothing to train");
  refused(layer("predict", {"--phase", "train", "--freeze", "router", "--train-only", "experts"}), "--train-only",
          "exclude each other");
  refused(layer("predict", {"--phase", "train", "--accumulation", "0"}), "--accumulation", "1");
  refused(layer("predict", {"--phase", "train", "--accumulation", "7"}), "--batch", "multiple of 7");
  refused(layer("predict", {"--phase", "train", "--optimizer", "adamm"}), "--optimizer", "did you mean \"adam\"?");
  refused(layer("predict", {"--phase", "train", "--recompute", "some"}), "--recompute", "selective");
  refused(layer("predict", {"--phase", "train", "--zero", "4"}), "--zero", "3");
  refused(layer("predict", {"--phase", "train", "--attack", "pgd:-1"}), "--attack", "1");
  refused(layer("predict", {"--phase", "train", "--attack", "pgd:2", "--optimizer", "sgd"}), "--optimizer", "--attack");
  refused(layer("predict", {"--phase", "train", "--state-dtype", "int4"}), "--state-dtype", "bf16");
  refused(layer("predict", {"--phase", "train", "--pp", "2"}), "--pp", "a stage holds one layer at least");
  refused(layer("predict", {"--optimizer", "sgd"}), "--optimizer", "--phase train");
  refused(layer("predict", {"--accumulation", "2"}), "--accumulation", "--phase train");
  refused(run_moecast({"predict", "--hw", "intel-xeon-processor-2cpu", "--model", "olmoe-1b-7b", "--phase", "train",
                       "--context", "64"}),
          "--context", "means nothing");
}

TEST(TrainCommand, TwoPhasesAddUpToTheWholeRun_A19) {
  const Json run = answer("train", {"--stage", "--name pretrain --steps 2000 --train-only experts", "--stage",
                                    "--steps 500 --optimizer sgd"});
  const Json& stages = run.at("stages");
  ASSERT_EQ(stages.size(), 2U);
  double sum = 0;
  for (const Json& stage : stages) {
    const double step = stage.at("step").at("latency_s");
    EXPECT_NEAR(stage.at("wall_clock_s").get<double>(), stage.at("steps").get<double>() * step, 1e-9);
    sum += stage.at("wall_clock_s").get<double>();
  }
  EXPECT_NEAR(run.at("total").at("wall_clock_s").get<double>() / sum, 1, 1e-12);
  EXPECT_NEAR(run.at("total").at("device_hours").get<double>(), sum / 3600, 1e-9);
  EXPECT_EQ(run.at("total").at("tokens"), 2500 * 256);
  EXPECT_EQ(stages.at(0).at("name"), "pretrain");
  EXPECT_EQ(stages.at(0).at("step").at("inputs").at("trained_parts"), "experts");
  EXPECT_EQ(stages.at(1).at("step").at("inputs").at("optimizer"), "sgd");
}

TEST(TrainCommand, RouterAndExpertsInTurnAndAnEvaluation_C20) {
  const Json run =
      answer("train", {"--rounds", "50", "--stage", "--steps 10 --train-only router", "--stage",
                       "--steps 10 --freeze router", "--stage", "--name robust --steps 2 --attack pgd:10"});
  EXPECT_EQ(run.at("rounds"), 50);
  EXPECT_EQ(run.at("total").at("steps"), 50 * 22);
  EXPECT_LT(run.at("stages").at(0).at("wall_clock_s"), run.at("stages").at(1).at("wall_clock_s"));
  EXPECT_EQ(run.at("stages").at(2).at("step").at("inputs").at("attack_steps"), 10);
  const Finished table = layer("train", {"--stage", "--steps 10 --name joint"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("joint"));
  EXPECT_THAT(table.out, HasSubstr("device time"));
}

TEST(TrainCommand, BadInputSaysTheStageAndTheRemedy) {
  refused(layer("train", {}), "--stage", "--steps 1000");
  refused(layer("train", {"--stage", "--freeze router"}), "--stage 1: --steps", "is missing");
  refused(layer("train", {"--stage", "--steps 5", "--stage", "--steps -5"}), "--stage 2: --steps", "1");
  refused(layer("train", {"--stage", "--steps 5 --frieze router"}), "--stage 1: --frieze", "--freeze");
  refused(layer("train", {"--rounds", "0", "--stage", "--steps 5"}), "--rounds", "1");
  refused(layer("train", {"--stage", "--steps 5 --accumulation 1-4"}), "", "one question");
  refused(layer("train", {"--stage", "--steps 5 --format csv"}), "--format", "whole run");
}

TEST(CompareDense, SaysTheSpeedUpOverADenseModelOfEqualFlopsOrWeights_C7) {
  const std::vector<std::string> mixtral{"compare", "--model", "mixtral-8x7b", "--hw",     "h200-sxm", "--tp",
                                         "2",       "--batch", "64",           "--format", "json"};
  const auto versus = [&](const char* what) {
    std::vector<std::string> words = mixtral;
    words.insert(words.end(), {"--versus", what});
    const Finished finished = run_moecast(words);
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  const Json flops = versus("dense-flops");
  EXPECT_NEAR(flops.at("b").at("parameters").at("total").get<double>() /
                  flops.at("a").at("parameters").at("active").get<double>(),
              1, 1e-3);
  const Json weights = versus("dense-parameters");
  EXPECT_NEAR(weights.at("b").at("parameters").at("total").get<double>() /
                  weights.at("a").at("parameters").at("total").get<double>(),
              1, 1e-3);
  EXPECT_FALSE(flops.at("speedup_ratio").is_null());
  EXPECT_GT(weights.at("b").at("latency_s"), flops.at("b").at("latency_s"));
  const Finished dense =
      run_moecast({"compare", "--model", "llama-3.1-8b", "--hw", "h200-sxm", "--versus", "dense-flops"});
  EXPECT_NE(dense.code, 0);
  EXPECT_THAT(dense.err, HasSubstr("no MoE block"));
}

TEST(PredictTraining, ZeroTradesMemoryForTraffic) {
  const auto ask = [](const char* stage) {
    const Finished finished =
        run_moecast({"predict", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "train", "--batch", "32",
                     "--prompt", "2048", "--replicas", "8", "--zero", stage, "--format", "json"});
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  const Json none = ask("0");
  double before = 1e300;
  for (const char* stage : {"0", "1", "2", "3"}) {
    const Json a = ask(stage);
    ASSERT_EQ(a.at("status"), "ok") << a.at("reason");
    EXPECT_LT(a.at("memory_per_rank").at("total_bytes").get<double>(), before) << stage;
    before = a.at("memory_per_rank").at("total_bytes");
    EXPECT_EQ(a.at("flops"), none.at("flops")) << "the same arithmetic";
  }
  EXPECT_GT(ask("3").at("latency_s"), ask("2").at("latency_s"));
}

TEST(PredictTraining, PipelineStagesFillAndDrain) {
  const auto ask = [](const char* stages, const char* parts) {
    const Finished finished = run_moecast({"predict", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "train",
                                           "--batch", "32", "--prompt", "2048", "--pp", stages, "--accumulation", parts,
                                           "--recompute", "full", "--format", "json"});
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  double bubbles = 1;
  for (const char* parts : {"1", "4", "32"}) {
    const Json a = ask("4", parts);
    ASSERT_EQ(a.at("status"), "ok") << a.at("reason");
    const Json& pipeline = a.at("pipeline");
    ASSERT_EQ(pipeline.at("stages").size(), 4U);
    const double m = std::stod(parts);
    double path = 0;
    double slowest = 0;
    for (const Json& stage : pipeline.at("stages")) {
      path += stage.at("latency_s").get<double>();
      slowest = std::max(slowest, stage.at("latency_s").get<double>());
    }
    double sent = 0;
    for (const Json& transfer : pipeline.at("transfers_s")) sent += transfer.get<double>();
    // One micro-batch after the other behind the slowest stage, between filling and draining. A transfer keeps both
    // of its stages busy.
    EXPECT_GE(pipeline.at("fill_drain_s").get<double>(), path + (m - 1) * slowest);
    EXPECT_LE(pipeline.at("fill_drain_s").get<double>(), path + (m - 1) * slowest + 2 * m * sent);
    EXPECT_LT(pipeline.at("fill_drain_bubble_ratio").get<double>(), bubbles);
    bubbles = pipeline.at("fill_drain_bubble_ratio");
    double phases = 0;
    for (const Json& phase : a.at("training").at("phases")) phases += phase.at("latency_s").get<double>();
    EXPECT_NEAR(phases / a.at("latency_s").get<double>(), 1, 1e-9);
    double operators = 0;
    for (const Json& op : a.at("operators")) operators += op.at("latency_s").get<double>();
    EXPECT_NEAR(operators / a.at("latency_s").get<double>(), 1, 1e-9);
    EXPECT_EQ(a.at("training").at("devices"), 4);
    EXPECT_NEAR(a.at("training").at("trained_parameters").get<double>(), 6.9e9, 0.1e9);
  }
  // (p - 1) / (m + p - 1) of four equal stages and 32 micro-batches is 9 %; the head makes the last one longer.
  EXPECT_GT(bubbles, 0.08);
  EXPECT_LT(bubbles, 0.35);
  const Json whole = ask("1", "4");
  EXPECT_LT(ask("4", "4").at("memory_per_rank").at("optimizer_states_bytes"),
            0.4 * whole.at("memory_per_rank").at("optimizer_states_bytes").get<double>());
  refused(run_moecast({"predict", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "train", "--pp", "4",
                       "--micro-batches", "4"}),
          "--micro-batches", "--accumulation");
}

TEST(PredictTraining, AGpuStepReducesGradientsAndSaysWhatStandsForWhat) {
  const Finished finished =
      run_moecast({"predict", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "train", "--batch", "32",
                   "--prompt", "2048", "--replicas", "8", "--zero", "1", "--format", "json"});
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json a = Json::parse(finished.out);
  ASSERT_EQ(a.at("status"), "ok") << a.at("reason");
  double sum = 0;
  for (const Json& phase : a.at("training").at("phases")) {
    sum += phase.at("latency_s").get<double>();
    EXPECT_EQ(phase.at("latency_s") > 0, phase.at("name") != "recompute") << phase;
  }
  EXPECT_NEAR(sum / a.at("latency_s").get<double>(), 1, 1e-12);
  EXPECT_EQ(a.at("training").at("devices"), 8);
  // Six operations a parameter and token, and the attention: between a tenth of the datasheet's peak and all of it.
  const double flops = a.at("flops").get<double>() / a.at("latency_s").get<double>();
  EXPECT_GT(flops, 0.1 * 989e12);
  EXPECT_LT(flops, 989e12);
  EXPECT_THAT(finished.err, HasSubstr("stand for those of training"));
}

}  // namespace
}  // namespace moecast::test
