// `--engine event` with pipeline stages, and `--eager`, as typed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

Json answer(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "predict");
  arguments.insert(arguments.end(), {"--format", "json"});
  const Finished finished = run_moecast(arguments);
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

const std::vector<std::string> kTraining{
    "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "train", "--batch",  "32",    "--prompt",       "1024",
    "--dp",    "4",           "--ep", "4",        "--pp",    "2",     "--engine", "event", "--accumulation", "8"};

TEST(PipelineEventsTyped, ATrainingStepSaysItsStages) {
  const Json usual = answer(kTraining);
  ASSERT_EQ(usual.at("status"), "ok") << usual.at("reason");
  EXPECT_EQ(usual.at("pipeline").at("stages").size(), 2U);
  EXPECT_EQ(usual.at("pipeline").at("micro_batches"), 8);
  std::vector<std::string> slow = kTraining;
  slow.insert(slow.end(), {"--slow-rank", "5:2"});
  EXPECT_GT(answer(slow).at("latency_s"), 1.3 * usual.at("latency_s").get<double>());
}

TEST(PipelineEventsTyped, ATrainingStepIsDrawnStageByStage) {
  const std::string path = testing::TempDir() + "pipeline.perfetto.json";
  std::vector<std::string> arguments{"trace"};
  for (std::size_t i = 0; i < kTraining.size(); i += 2) {
    if (kTraining[i] == "--engine") continue;
    arguments.insert(arguments.end(), {kTraining[i], kTraining[i + 1]});
  }
  arguments.insert(arguments.end(), {"-o", path});
  const Finished finished = run_moecast(arguments);
  ASSERT_EQ(finished.code, 0) << finished.err;
  std::ifstream file(path);
  const Json trace = Json::parse(file);
  int first = 0;
  int second = 0;
  for (const Json& event : trace.at("traceEvents")) {
    const std::string name = event.value("name", "");
    first += name == "activations of micro-batch 7 to stage 1" ? 1 : 0;
    second += name == "gradients of micro-batch 7 to stage 0" ? 1 : 0;
  }
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 1);
}

TEST(PipelineEventsTyped, AServingStepSaysItsStagesAndWhatIsOfOne) {
  const std::vector<std::string> step{"--model",   "deepseek-v3", "--hw",     "h200-sxm", "--backend", "sglang",
                                      "--ep",      "8",           "--pp",     "2",        "--batch",   "256",
                                      "--context", "1000",        "--engine", "event",    "--samples", "4"};
  const Json p = answer(step);
  ASSERT_EQ(p.at("status"), "ok") << p.at("reason");
  EXPECT_EQ(p.at("pipeline").at("stages").size(), 2U);
  EXPECT_EQ(p.at("pipeline").at("transfers_s").size(), 1U);
  std::vector<std::string> degraded{"predict"};
  degraded.insert(degraded.end(), step.begin(), step.end());
  degraded.insert(degraded.end(), {"--slow-link", "rank 2 port in:0.5"});
  const Finished refused = run_moecast(degraded);
  EXPECT_EQ(refused.code, 2) << refused.out;
  EXPECT_THAT(refused.err, HasSubstr("--slow-link"));
}

TEST(EagerTyped, IsSlowerSaidAndRefusedWhereItMeansNothing) {
  const std::vector<std::string> step{"--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--tp", "2", "--batch", "8"};
  std::vector<std::string> eager = step;
  eager.emplace_back("--eager");
  const Json p = answer(eager);
  EXPECT_GT(p.at("latency_s"), 2 * answer(step).at("latency_s").get<double>());
  EXPECT_EQ(p.at("inputs").at("eager"), true);
  EXPECT_THAT(p.at("warnings").dump(), HasSubstr("eager"));
  const std::vector<std::string> layer{"predict",   "--hw", "h200-sxm", "--hidden", "2048",     "--width", "768",
                                       "--experts", "64",   "--top-k",  "8",        "--tokens", "64",      "--eager"};
  for (const char* engine : {"analytic", "event"}) {
    std::vector<std::string> asked = layer;
    asked.insert(asked.end(), {"--engine", engine});
    const Finished refused = run_moecast(asked);
    EXPECT_EQ(refused.code, 2) << engine;
    EXPECT_THAT(refused.err, HasSubstr("ask about a model"));
  }
}

}  // namespace
}  // namespace moecast::test
