#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;

TEST(PredictCommand, TypoInAFlagSuggestsTheNearest) {
  const Finished help = run_moecast({"predict", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("moecast predict --hidden 1024"));
  const Finished typo = run_moecast({"predict", "--modle", "x"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_THAT(typo.err, HasSubstr("did you mean \"--model\"?"));
}

TEST(PredictCommand, TheShippedProfileOfAXeonAnswers) {
  const Finished shipped = run_moecast({"predict", "--hw", "intel-xeon-processor-2cpu", "--hidden", "1024", "--width",
                                        "2048", "--experts", "16", "--top-k", "2", "--tokens", "64"});
  EXPECT_EQ(shipped.code, 0) << shipped.err;
  EXPECT_THAT(shipped.out, HasSubstr("memory_bandwidth"));
}

TEST(PredictCommand, ACpuWithoutBf16AnswersInWhatItWasProfiledIn) {
  const Finished finished = run_moecast({"predict", "--hw", "amd-epyc-2cpu", "--hidden", "1024", "--width", "2048",
                                         "--experts", "16", "--top-k", "2", "--tokens", "64", "--format", "json"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  const auto a = nlohmann::json::parse(finished.out);
  EXPECT_EQ(a.at("status"), "ok") << a.at("reason");
  EXPECT_EQ(a.at("inputs").at("dtype"), "fp32");
}

TEST(PredictCommand, WithoutAProfileSaysHowToMakeOne) {
  const Finished refused =
      run_moecast({"predict", "--hidden", "64", "--width", "64", "--experts", "4", "--top-k", "2", "--tokens", "8"},
                  {.environment = {{"MOECAST_PROFILES", fresh_folder("predict-no-profiles")}}});
  EXPECT_NE(refused.code, 0);
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(refused.err, HasSubstr("moecast profile"));
}

using Json = nlohmann::json;

const std::vector<std::string> kXeon{"predict", "--hw", "intel-xeon-processor-2cpu"};
const std::vector<std::string> kLayer{"--hidden", "1024", "--width", "2048", "--experts", "16", "--top-k", "2"};

Json answer(std::vector<std::string> more) {
  std::vector<std::string> words = kXeon;
  words.insert(words.end(), more.begin(), more.end());
  words.insert(words.end(), {"--format", "json"});
  const Finished finished = run_moecast(words);
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

Json layer(std::vector<std::string> more) {
  more.insert(more.begin(), kLayer.begin(), kLayer.end());
  return answer(std::move(more));
}

TEST(PredictContract, ExpertParallelEfficiencyIsThatOfOneDeviceOverAllOfThem_A25) {
  const auto asked = [](const std::vector<std::string>& degrees) {
    std::vector<std::string> words{"predict", "--hw",      "h200-sxm", "--model",  "qwen3-30b-a3b", "--batch",
                                   "64",      "--context", "1024",     "--format", "json"};
    words.insert(words.end(), degrees.begin(), degrees.end());
    const Finished finished = run_moecast(words);
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  const double alone = asked({}).at("latency_s");
  for (const auto& degrees : std::vector<std::vector<std::string>>{
           {"--ep", "8", "--dp", "8"}, {"--ep", "8", "--tp", "8"}, {"--ep", "8", "--tp", "2", "--dp", "4"}}) {
    const Json a = asked(degrees);
    const double ratio = a.at("factors").at("expert_parallel_efficiency_ratio");
    EXPECT_DOUBLE_EQ(ratio, alone / (8 * a.at("latency_s").get<double>())) << degrees[2];
    EXPECT_LE(ratio, 1);
  }
}

TEST(PredictContract, AnAnswerHoldsEveryFieldWithItsType) {
  const Json a = layer({"--tokens", "64", "--dtype", "fp32"});
  EXPECT_EQ(a.at("status"), "ok");
  EXPECT_TRUE(a.at("reason").is_null());
  for (const char* key : {"latency_s", "latency_low_s", "latency_high_s", "throughput_tokens_per_s", "flops"}) {
    EXPECT_GT(a.at(key).get<double>(), 0) << key;
  }
  EXPECT_LT(a.at("latency_low_s"), a.at("latency_s"));
  EXPECT_LT(a.at("latency_s"), a.at("latency_high_s"));
  EXPECT_EQ(a.at("confidence_ratio"), 0.9);
  EXPECT_NEAR(a.at("throughput_tokens_per_s").get<double>() * a.at("latency_s").get<double>(), 64, 1e-6);
  for (const char* key : {"all_to_all_s", "memory_bandwidth_s", "compute_s", "routing_overhead_s"}) {
    EXPECT_GE(a.at("factors").at(key).get<double>(), 0) << key;
  }
  EXPECT_EQ(a.at("factors").at("expert_parallel_efficiency_ratio"), 1);
  double total = 0;
  for (const char* key : {"weights_bytes", "kv_cache_bytes", "activations_bytes", "workspace_bytes"}) {
    total += a.at("memory_per_rank").at(key).get<double>();
  }
  EXPECT_DOUBLE_EQ(a.at("memory_per_rank").at("total_bytes").get<double>(), total);
  EXPECT_GT(a.at("memory_per_rank").at("capacity_bytes").get<double>(), 1e9);
  EXPECT_NEAR(a.at("parameters").at("total").get<double>(), 16 * 3.0 * 1024 * 2048 + 16 * 1024, 2 * 1024);
  EXPECT_NEAR(a.at("parameters").at("active").get<double>(), 2 * 3.0 * 1024 * 2048 + 16 * 1024, 2 * 1024);
  EXPECT_TRUE(a.at("bottleneck").is_string());
  EXPECT_TRUE(a.at("warnings").is_array());
  double sum = 0;
  for (const Json& op : a.at("operators")) {
    sum += op.at("latency_s").get<double>();
    for (const char* key : {"kind", "name", "count", "origin"}) EXPECT_TRUE(op.contains(key)) << key;
  }
  EXPECT_NEAR(sum, a.at("latency_s").get<double>(), 1e-9);
  EXPECT_EQ(a.at("inputs").at("tokens"), 64);
  EXPECT_TRUE(a.at("inputs").at("defaults").is_array());
}

TEST(PredictContract, WhatDoesNotFitSaysByHowMuchAndStillCounts) {
  const Json a = answer({"--model", "mixtral-8x7b", "--dtype", "bf16"});
  EXPECT_EQ(a.at("status"), "does_not_fit");
  EXPECT_THAT(a.at("reason").get<std::string>(), HasSubstr("too much"));
  for (const char* key : {"latency_s", "latency_low_s", "throughput_tokens_per_s", "bottleneck", "origin"}) {
    EXPECT_TRUE(a.at(key).is_null()) << key;
  }
  for (const auto& [name, factor] : a.at("factors").items()) EXPECT_TRUE(factor.is_null()) << name;
  EXPECT_GT(a.at("memory_per_rank").at("total_bytes").get<double>(), 90e9);
  EXPECT_GT(a.at("flops").get<double>(), 20e9);
}

TEST(PredictContract, SeveralRanksWithoutMeasuredCollectivesHaveNoLatency) {
  for (const char* degree : {"--tp", "--ep", "--dp", "--pp"}) {
    const Json a = answer({"--model", "olmoe-1b-7b", "--dtype", "bf16", degree, "2"});
    EXPECT_EQ(a.at("status"), "outside_range") << degree;
    EXPECT_TRUE(a.at("latency_s").is_null()) << degree;
    EXPECT_THAT(a.at("reason").get<std::string>(), HasSubstr("holds no")) << degree;
    EXPECT_GT(a.at("memory_per_rank").at("total_bytes").get<double>(), 1e9) << degree;
  }
}

TEST(PredictContract, WhatWasNeverMeasuredIsNamed) {
  const Json a = answer({"--model", "qwen3-next-80b-a3b", "--dtype", "int4"});
  EXPECT_NE(a.at("status"), "ok");
  EXPECT_TRUE(a.at("latency_s").is_null());
  EXPECT_GT(a.at("memory_per_rank").at("kv_cache_bytes").get<double>(), 0);
}

TEST(PredictContract, ModelsWithoutADecoderEncode) {
  const Json a = answer({"--model", "v-moe-b-16-every2", "--dtype", "bf16"});
  EXPECT_EQ(a.at("inputs").at("phase"), "encode");
  EXPECT_EQ(a.at("memory_per_rank").at("kv_cache_bytes"), 0);
  EXPECT_EQ(a.at("status"), "ok");
}

TEST(PredictContract, TheSourceOfATranslationCounts) {
  const auto decode = [](const char* source) {
    return answer({"--model", "switch-base-8", "--dtype", "bf16", "--context", "16", "--source", source});
  };
  const Json small = decode("16");
  const Json large = decode("4096");
  EXPECT_GT(large.at("latency_s"), small.at("latency_s"));
  EXPECT_GT(large.at("memory_per_rank").at("kv_cache_bytes"), small.at("memory_per_rank").at("kv_cache_bytes"));
}

TEST(PredictContract, AContextBeyondTheModelsIsOutsideItsRange) {
  const Json a = answer({"--model", "olmoe-1b-7b", "--dtype", "bf16", "--context", "5000", "--max-context", "4096"});
  EXPECT_EQ(a.at("status"), "outside_range");
  EXPECT_THAT(a.at("reason").get<std::string>(), HasSubstr("exceed the 4096"));
}

TEST(PredictContract, RangesAnswerOnceAValueInEveryFormat) {
  std::vector<std::string> words = kXeon;
  words.insert(words.end(), kLayer.begin(), kLayer.end());
  words.insert(words.end(), {"--tokens", "8,16,32", "--dtype", "fp32", "--format"});
  const auto lines = [&](const char* format) {
    std::vector<std::string> all = words;
    all.emplace_back(format);
    const Finished finished = run_moecast(all);
    EXPECT_EQ(finished.code, 0) << finished.err;
    return finished.out;
  };
  const Json list = Json::parse(lines("json"));
  ASSERT_EQ(list.size(), 3U);
  EXPECT_LT(list[0].at("latency_s"), list[2].at("latency_s"));
  EXPECT_EQ(list[1].at("inputs").at("tokens"), 16);
  const std::string jsonl = lines("jsonl");
  EXPECT_EQ(std::count(jsonl.begin(), jsonl.end(), '\n'), 3);
  const std::string csv = lines("csv");
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);
  EXPECT_THAT(lines("md"), HasSubstr("| "));
}

TEST(PredictContract, RemovingAFactorNeverSlows) {
  const double whole = layer({"--tokens", "64", "--load", "zipf:1.2"}).at("latency_s");
  for (const char* factor : {"all-to-all", "memory-bandwidth", "routing-overhead", "imbalance"}) {
    EXPECT_LE(layer({"--tokens", "64", "--load", "zipf:1.2", "--without", factor}).at("latency_s").get<double>(), whole)
        << factor;
  }
}

TEST(PredictCommand, ExpertParallelismAloneReplicatesAttentionAndSaysSo) {
  const std::vector<std::string> words{"predict", "--model", "mixtral-8x7b", "--hw", "h200-sxm", "--ep", "8",
                                       "--batch", "64",      "--context",    "4096", "--format", "json"};
  const Finished alone = run_moecast(words);
  ASSERT_EQ(alone.code, 0) << alone.err;
  EXPECT_THAT(alone.out, testing::HasSubstr("attention has 8 replicas"));
  std::vector<std::string> more = words;
  more.insert(more.end(), {"--dp", "8"});
  const Finished said = run_moecast(more);
  EXPECT_THAT(said.out, testing::Not(testing::HasSubstr("replicas, one on each")));
  const auto latency = [](const Finished& finished) {
    return nlohmann::json::parse(finished.out).at("latency_s").get<double>();
  };
  EXPECT_EQ(latency(alone), latency(said));
}

}  // namespace
}  // namespace moecast::test
