// `recommend` (a closed formula) beside `serve` (simulated requests): the same loads of the same deployments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using Json = nlohmann::json;

Json answer(const std::vector<std::string>& words) {
  const Finished finished = run_moecast(words);
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

std::string number(const Json& deployment, const char* degree) {
  return std::to_string(deployment.at(degree).get<int>());
}

/// TPOT of `serve` over that of `recommend`, for replicas of attention at these requests in flight.
void expect_agreement(const std::string& backend, const std::string& output, std::int64_t concurrency) {
  const Json law =
      answer({"recommend", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--gpus", "4", "--pp", "1", "--backend",
              backend, "--prompt", "2048", "--output", output, "--top", "100000", "--format", "json"});
  int compared = 0;
  for (const Json& d : law.at("deployments")) {
    if (d.at("concurrency") != concurrency || d.at("dp") == 1) continue;
    ++compared;
    const Json served = answer({"serve",
                                "--model",
                                "qwen3-30b-a3b",
                                "--hw",
                                "h200-sxm",
                                "--backend",
                                backend,
                                "--tp",
                                number(d, "tp"),
                                "--dp",
                                number(d, "dp"),
                                "--ep",
                                number(d, "ep"),
                                "--prompt",
                                "2048",
                                "--output",
                                output,
                                "--concurrency",
                                std::to_string(concurrency),
                                "--format",
                                "json"});
    EXPECT_NEAR(served.at("tpot_p50_s").get<double>() / d.at("tpot_s").get<double>(), 1, 0.03)
        << backend << " " << concurrency << ": " << d.dump();
  }
  EXPECT_GE(compared, 2) << backend << " " << concurrency;
}

TEST(Recommend, IsServedAsItSaysWhereReplicasStepTogether) {
  expect_agreement("vllm", "512", 16);
  expect_agreement("vllm", "2048", 64);
  expect_agreement("sglang", "2048", 64);
  expect_agreement("trtllm", "2048", 64);  // holds prompts back until every replica has one
}

TEST(Recommend, ALoneRequestWaitsForNoOtherReplica) {
  const auto front = [](const std::string& output) {
    return answer({"serve", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--backend", "trtllm", "--dp", "4", "--ep",
                   "4", "--concurrency", "1", "--requests", "4", "--output", output, "--format", "json"})
        .at("inputs")
        .at("front_end_s")
        .get<double>();
  };
  EXPECT_NEAR(front("2048") / front("64"), 1, 0.05);
}

TEST(Recommend, TheQueueForAFirstTokenGrowsBeyondSaturationAndTokensDoNot) {
  const Json law = answer({"recommend", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--gpus", "4", "--pp", "1",
                           "--prompt", "1024", "--output", "16", "--top", "100000", "--format", "json"});
  Json few;
  Json many;
  for (const Json& d : law.at("deployments")) {
    if (d.at("dp") != 4 || d.at("ep") != 4) continue;
    if (d.at("concurrency") == 1024) few = d;
    if (d.at("concurrency") == 4096) many = d;
  }
  ASSERT_FALSE(few.is_null() || many.is_null());
  EXPECT_GT(many.at("ttft_s").get<double>(), 3 * few.at("ttft_s").get<double>());
  EXPECT_NEAR(many.at("tokens_per_s").get<double>() / few.at("tokens_per_s").get<double>(), 1, 0.15);
}

TEST(Recommend, ATokenMoreThanAChunkIsNoChunkMore) {
  const auto ttft = [](const std::string& prompt) {
    const Json law = answer({"recommend", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--gpus", "1", "--prompt",
                             prompt, "--output", "256", "--top", "100000", "--format", "json"});
    for (const Json& d : law.at("deployments")) {
      if (d.at("concurrency") == 32) return d.at("ttft_s").get<double>();
    }
    return 0.0;
  };
  EXPECT_NEAR(ttft("8193") / ttft("8192"), 1, 0.1);
  EXPECT_NEAR(ttft("4097") / ttft("4096"), 1, 0.02);
}

/// Of `serve` with lengths that vary, over what `recommend` says of eight GPUs of one tensor-parallel group.
void expect_served(const std::vector<std::string>& question, std::int64_t concurrency, double tolerance) {
  std::vector<std::string> asked{"recommend", "--gpus", "8", "--pp", "1", "--top", "100000", "--format", "json"};
  asked.insert(asked.end(), question.begin(), question.end());
  int compared = 0;
  const Json law = answer(asked);
  for (const Json& d : law.at("deployments")) {
    if (d.at("concurrency") != concurrency || d.at("tp") != 8 || d.at("ep") != 8) continue;
    ++compared;
    std::vector<std::string> words{
        "serve",         "--tp", "8",        "--ep", "8", "--concurrency", std::to_string(concurrency),
        "--range-ratio", "0.2",  "--format", "json"};
    words.insert(words.end(), question.begin(), question.end());
    const Json served = answer(words);
    EXPECT_NEAR(served.at("tpot_mean_s").get<double>() / d.at("tpot_s").get<double>(), 1, tolerance) << d.dump();
    EXPECT_NEAR(served.at("ttft_mean_s").get<double>() / d.at("ttft_s").get<double>(), 1, 3 * tolerance) << d.dump();
  }
  EXPECT_EQ(compared, 1);
}

TEST(Recommend, IsServedAsItSaysWithManyPromptsAStep) {
  const std::vector<std::string> short_ones{"--model",   "qwen3-235b-a22b", "--hw", "h200-sxm", "--dtype",
                                            "fp8_block", "--prompt",        "128",  "--output", "64"};
  expect_served(short_ones, 64, 0.06);
  expect_served(short_ones, 256, 0.06);
}

TEST(Recommend, IsServedAsItSaysWhereReplicasAndStagesShareWeights) {
  struct Case {
    std::string backend, tp, dp, pp, ep, prompt, output;
    std::int64_t concurrency;
  };
  for (const Case& c :
       {Case{"vllm", "2", "4", "1", "8", "512", "512", 4096}, Case{"vllm", "1", "8", "1", "8", "64", "128", 1024},
        Case{"trtllm", "1", "8", "1", "8", "64", "128", 4096}, Case{"vllm", "4", "1", "2", "4", "16", "512", 1024}}) {
    const std::vector<std::string> question{
        "--model",  "qwen3-235b-a22b", "--hw",     "b200-sxm", "--dtype",  "fp8_block", "--backend", c.backend,
        "--prompt", c.prompt,          "--output", c.output,   "--format", "json",      "--pp",      c.pp};
    std::vector<std::string> asked{"recommend", "--gpus", "8", "--top", "100000"};
    asked.insert(asked.end(), question.begin(), question.end());
    std::vector<std::string> served{"serve",
                                    "--tp",
                                    c.tp,
                                    "--dp",
                                    c.dp,
                                    "--ep",
                                    c.ep,
                                    "--range-ratio",
                                    "0.2",
                                    "--concurrency",
                                    std::to_string(c.concurrency)};
    served.insert(served.end(), question.begin(), question.end());
    const double tpot = answer(served).at("tpot_mean_s").get<double>();
    std::map<std::int64_t, double> law;
    const Json recommended = answer(asked);
    for (const Json& d : recommended.at("deployments")) {
      if (number(d, "tp") == c.tp && number(d, "dp") == c.dp && number(d, "ep") == c.ep) {
        law[d.at("concurrency").get<std::int64_t>()] = d.at("tpot_s").get<double>();
      }
    }
    ASSERT_TRUE(law.contains(c.concurrency)) << c.backend << c.dp;
    EXPECT_NEAR(law[c.concurrency] / tpot, 1, 0.12) << c.backend << " dp " << c.dp << " pp " << c.pp;
    double last = 0;
    for (const auto& [requests, seconds] : law) {
      EXPECT_GE(seconds, 0.95 * last) << c.backend << " dp " << c.dp << ": " << requests << " requests";
      last = seconds;
    }
  }
}

TEST(Recommend, IsServedAsItSaysWithGuesses) {
  const std::vector<std::string> guesses{"--model",      "deepseek-v3", "--hw",           "b200-sxm",
                                         "--backend",    "trtllm",      "--draft-tokens", "3",
                                         "--acceptance", "0.7",         "--output",       "512"};
  expect_served(guesses, 16, 0.04);
}

TEST(Recommend, GuessesNeedLayersThatGuessAndHowOftenTheyAreRight) {
  const Finished none = run_moecast(
      {"recommend", "--model", "qwen3-235b-a22b", "--hw", "b200-sxm", "--draft-tokens", "3", "--acceptance", "0.7"});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, testing::HasSubstr("no layers of multi-token prediction"));
  const Finished unknown =
      run_moecast({"recommend", "--model", "deepseek-v3", "--hw", "b200-sxm", "--draft-tokens", "3"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, testing::HasSubstr("--acceptance"));
}

}  // namespace
}  // namespace moecast::test
