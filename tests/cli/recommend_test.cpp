// `recommend` (a closed formula) beside `serve` (simulated requests): the same loads of the same deployments.
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

TEST(Recommend, TheQueueForAFirstTokenGrowsAsTheLoad) {
  const Json law = answer({"recommend", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--gpus", "4", "--pp", "1",
                           "--prompt", "1024", "--output", "16", "--top", "100000", "--format", "json"});
  double few = 0;
  double many = 0;
  for (const Json& d : law.at("deployments")) {
    if (d.at("dp") != 4 || d.at("ep") != 4) continue;
    if (d.at("concurrency") == 256) few = d.at("ttft_s");
    if (d.at("concurrency") == 1024) many = d.at("ttft_s");
  }
  ASSERT_GT(few, 0);
  EXPECT_GT(many, few);
  EXPECT_LT(many, 5 * few);
}

}  // namespace
}  // namespace moecast::test
