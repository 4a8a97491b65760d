#include "hwprofiles/published_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

const std::string kFolder = std::string(MOECAST_SOURCE_DIR) + "/hwprofiles/benchmarks";

ServingRow row(const std::string& engine, const std::string& model, const std::string& system, double concurrency) {
  ServingRow made;
  made.engine = engine;
  made.model = model;
  made.system = system;
  made.expert_dtype = "fp8";
  made.prompt = made.output = 1024;
  made.concurrency = concurrency;
  made.tp = 8;
  return made;
}

TEST(PublishedRuns, SayWhatATableLeavesOut) {
  const std::vector<PublishedRuns> known = PublishedRuns::read_all(kFolder);
  ASSERT_FALSE(known.empty());
  ServingRow llama = row("trtllm", "meta-llama/Llama-3.1-70B", "h200_sxm", 16);
  EXPECT_NEAR(settings_of(known, llama).length_ratio, 0.9, 1e-12);
  EXPECT_EQ(settings_of(known, llama).waves, 10);
  EXPECT_EQ(settings_of(known, llama).wait_steps, 0) << "tp 8 does not wait";
  llama.tp = 4;
  EXPECT_EQ(settings_of(known, llama).wait_steps, 20);
  llama.output = 8192;
  EXPECT_EQ(settings_of(known, llama).wait_steps, 0);
  EXPECT_NEAR(settings_of(known, row("vllm", "openai/gpt-oss-120b", "b200_sxm", 16)).length_ratio, 0.9, 1e-12);
}

TEST(PublishedRuns, ASchedulerThatPollsTakesHalfOfItsInterval) {
  const std::vector<PublishedRuns> known = PublishedRuns::read_all(kFolder);
  ServingRow deepseek = row("sglang", "deepseek-ai/DeepSeek-V3", "b200_sxm", 64);
  deepseek.version = "0.5.9";
  EXPECT_EQ(settings_of(known, deepseek).wait_steps, 15);
  deepseek.concurrency = 8;
  EXPECT_EQ(settings_of(known, deepseek).wait_steps, 5);
  deepseek.system = "h200_sxm";
  EXPECT_EQ(settings_of(known, deepseek).wait_steps, 0);
  EXPECT_FALSE(settings_of(known, deepseek).superseded);
  deepseek.version = "";
  EXPECT_TRUE(settings_of(known, deepseek).superseded);
}

TEST(PublishedRuns, TheDayOfARunTellsWhetherItGuessed) {
  const std::vector<PublishedRuns> known = PublishedRuns::read_all(kFolder);
  ServingRow deepseek = row("trtllm", "deepseek-ai/DeepSeek-R1", "h200_sxm", 16);
  deepseek.version = "1.1.0rc2.post2";
  deepseek.date = "2025-12-15";
  EXPECT_EQ(settings_of(known, deepseek).draft_tokens, 0);
  deepseek.date = "2026-01-14";
  EXPECT_EQ(settings_of(known, deepseek).draft_tokens, 3);
  EXPECT_GT(settings_of(known, deepseek).acceptance, 0.5);
  deepseek.dp = 8;
  EXPECT_EQ(settings_of(known, deepseek).draft_tokens, 1);
}

TEST(PublishedRuns, WhereOnlyRunsThatGuessWentTheyGuess) {
  const std::vector<PublishedRuns> known = PublishedRuns::read_all(kFolder);
  ServingRow deepseek = row("sglang", "deepseek-ai/DeepSeek-R1", "b200_sxm", 128);
  deepseek.version = "0.5.9";
  EXPECT_EQ(settings_of(known, deepseek).draft_tokens, 2);
  deepseek.concurrency = 64;
  EXPECT_EQ(settings_of(known, deepseek).draft_tokens, 0);
  deepseek.prompt = 8192;
  EXPECT_EQ(settings_of(known, deepseek).draft_tokens, 2);
  deepseek.concurrency = 4;
  EXPECT_EQ(settings_of(known, deepseek).draft_tokens, 0);
}

TEST(PublishedRuns, AKernelThatNobodyMeasuredHasTheNearestOne) {
  const std::vector<PublishedRuns> known = PublishedRuns::read_all(kFolder);
  ServingRow deepseek = row("trtllm", "deepseek-ai/DeepSeek-R1", "b200_sxm", 16);
  deepseek.version = "1.2.0rc6.post2";
  EXPECT_EQ(settings_of(known, deepseek).expert_dtype, "fp8");
  deepseek.version = "1.1.0rc2.post2";
  EXPECT_EQ(settings_of(known, deepseek).expert_dtype, "") << "DeepGEMM: the checkpoint's format";
}

TEST(PublishedRuns, ScriptsSayTheFormatOfTheCacheAndTheAllReduce) {
  const std::vector<PublishedRuns> known = PublishedRuns::read_all(kFolder);
  ServingRow llama = row("vllm", "meta-llama/Llama-3.1-70B", "h200_sxm", 16);
  EXPECT_EQ(settings_of(known, llama).kv_dtype, "fp8");
  EXPECT_EQ(settings_of(known, llama).all_reduce, "");
  llama.system = "b200_sxm";
  EXPECT_EQ(settings_of(known, llama).all_reduce, "trtllm") << "FlashInfer's, fused with the norm";
  const ServingRow hopper = row("sglang", "deepseek-ai/DeepSeek-R1", "h200_sxm", 16);
  EXPECT_EQ(settings_of(known, hopper).kv_dtype, "");
  ServingRow blackwell = row("sglang", "deepseek-ai/DeepSeek-R1", "b300_sxm", 16);
  EXPECT_EQ(settings_of(known, blackwell).kv_dtype, "fp8");
  EXPECT_FALSE(settings_of(known, blackwell).defective);
  blackwell.version = "0.5.10.post1";
  EXPECT_TRUE(settings_of(known, blackwell).defective);
}

TEST(PublishedRuns, AnAllReduceIsOneThatWasMeasured) {
  std::string text = read_text_file(kFolder + std::string("/inferencex.json"));
  text.replace(text.find("\"all_reduce\": \"trtllm\""), 22, "\"all_reduce\": \"other\"");
  EXPECT_THROW(PublishedRuns::parse(text, "runs.json"), InputError);
}

TEST(PublishedRuns, TwoThatClaimOneRowAreAnError) {
  std::vector<PublishedRuns> known = PublishedRuns::read_all(kFolder);
  const ServingRow llama = row("vllm", "meta-llama/Llama-3.1-70B", "h200_sxm", 16);
  EXPECT_NO_THROW(settings_of(known, llama));
  known.push_back(known.front());
  EXPECT_THROW(settings_of(known, llama), InputError);
  EXPECT_NO_THROW(settings_of(known, row("trtllm", "Qwen/Qwen3-235B-A22B-FP8", "h100_sxm", 16))) << "of neither";
}

TEST(PublishedRuns, OthersAreAsSuchBenchmarksAre) {
  const std::vector<PublishedRuns> known = PublishedRuns::read_all(kFolder);
  const RunSettings other = settings_of(known, row("trtllm", "Qwen/Qwen3-235B-A22B-FP8", "h100_sxm", 16));
  EXPECT_EQ(other.length_ratio, 1);
  EXPECT_EQ(other.draft_tokens, 0);
  EXPECT_TRUE(PublishedRuns::read_all("/nowhere").empty());
}

TEST(PublishedRuns, BrokenFilesAreRefused) {
  const auto why = [](const std::string& settings, const std::string& most = "1") {
    const std::string text = R"({"schema_version": 1, "name": "x", "source": "y", "models": ["a/"],
      "lengths": [[1, 2]], "range": {"least": 0.8, "most": )" +
                             most + R"(, "source": "z"}, "waves": {"value": 10, "source": "z"}, "settings": [)" +
                             settings + "]}";
    try {
      static_cast<void>(PublishedRuns::parse(text, "x.json"));
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(why(R"({"engine": "trtllm", "source": "s"})"), "");
  EXPECT_THAT(why(R"({"engine": "trtllm"})"), ::testing::HasSubstr("source"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "draft_tokens": 3})"), ::testing::HasSubstr("acceptance"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "expert_kernels": "fp7"})"), ::testing::HasSubstr("fp7"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "kv_dtype": "fp7"})"), ::testing::HasSubstr("fp7"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "lengths": {}})"), ::testing::HasSubstr("lengths"));
  EXPECT_THROW(PublishedRuns::parse(
                   R"({"schema_version": 1, "name": "x", "source": "y", "range": {"least": 1, "most": 1, "source": "s"},
        "waves": {"value": 1, "source": "s"}, "settings": []})",
                   "all.json"),
               InputError)
      << "a benchmark of every model and length";
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "acceptance": 0.5})"), ::testing::HasSubstr("none are made"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "measured_from": "14.1.2026"})"),
              ::testing::HasSubstr("no day"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "measured_from": "2026-13-01"})"),
              ::testing::HasSubstr("no day"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "tp": [8, 4]})"), ::testing::HasSubstr("goes down"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "tp": [8]})"), ::testing::HasSubstr("not [first, second]"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "models": []})"), ::testing::HasSubstr("no list"));
  EXPECT_THAT(why(R"({"engine": "trtllm", "source": "s", "systmes": ["b"]})"), ::testing::HasSubstr("systmes"));
  EXPECT_THAT(why("", "0.1"), ::testing::HasSubstr("most"));
}

}  // namespace
}  // namespace moecast
