#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

/// What a question about models and services is refused with: code, what is wrong, how to mend it, and no answer.
void refused(const Words& words, int code, const std::string& what, const std::string& how) {
  const Finished finished = run_moecast(words);
  SCOPED_TRACE(testing::PrintToString(words));
  EXPECT_EQ(finished.code, code) << finished.err;
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, HasSubstr(what));
  EXPECT_THAT(finished.err, HasSubstr(how));
}

Words gpu(const char* command, const Words& more) {
  Words words{command, "--model", "qwen3-30b-a3b", "--hw", "h200-sxm"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(BadQuestion, ParallelismThatDoesNotDivideNamesTheFlag) {
  for (const char* command : {"predict", "explain"}) {
    refused(gpu(command, {"--tp", "3"}), 2, "--tp: 3 ranks do not divide", "divides it");
    refused(gpu(command, {"--tp", "2", "--ep", "3"}), 2, "--ep: 3", "divides");
    refused(gpu(command, {"--pp", "49"}), 2, "--pp: 49 stages for 48 layers", "at least");
    refused(gpu(command, {"--tp", "4", "--ep", "2", "--moe-tp", "4"}), 2, "--moe-tp", "leave it out");
    refused(gpu(command, {"--micro-batches", "2"}), 2, "need pipeline stages", "--pp 2");
  }
  refused(gpu("serve", {"--rate", "1", "--tp", "3"}), 2, "--tp", "divides it");
}

TEST(BadQuestion, MoreGpusThanTheClusterHas) {
  const std::string folder = fresh_folder("bad-question-cluster");
  write_text(folder + "/half.json",
             R"({"schema_version": 1, "name": "half", "device": "h200-sxm", "devices_per_node": 4, "most_nodes": 1,
                 "scale_up": {"kind": "switch", "bandwidth": null}, "scale_out": {"kind": "none", "bandwidth": null},
                 "notes": []})");
  refused(gpu("predict", {"--engine", "event", "--ep", "8", "--batch", "64", "--cluster", folder + "/half.json"}), 2,
          "half has 4 devices, 8 ranks are asked for", "a larger cluster");
}

TEST(BadQuestion, MoreGpusThanTheClusterHasForTheAnalyticEngine) {
  refused({"predict", "--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--tp", "8", "--dp", "16", "--ep", "128",
           "--pp", "94", "--cluster", "h200-hgx-rail"},
          2, "has 8192 devices, 12032 are asked for", "a larger cluster");
  const Finished known = run_moecast(gpu("predict", {"--tp", "8", "--cluster", "h200-hgx-rail", "--format", "json"}));
  EXPECT_EQ(Json::parse(known.out).at("inputs").at("cluster"), "h200-hgx-rail");
}

TEST(BadQuestion, AContextBeyondTheModelsIsAStatus) {
  const auto ask = [](const char* command, std::vector<std::string> words) {
    words.insert(words.end(), {"--format", "json"});
    const Finished finished = run_moecast(gpu(command, words));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  for (const char* engine : {"analytic", "event"}) {
    const Json json = ask("predict", {"--batch", "8", "--ep", "8", "--context", "200000", "--engine", engine});
    EXPECT_EQ(json.at("status"), "outside_range") << engine;
    EXPECT_TRUE(json.at("latency_s").is_null());
    EXPECT_THAT(json.at("reason").get<std::string>(), HasSubstr("exceed the 40960"));
  }
  const Json prefix = ask("predict", {"--phase", "prefill", "--prompt", "512", "--prefix", "40960"});
  EXPECT_THAT(prefix.at("reason").get<std::string>(), HasSubstr("sequences of 41472 tokens exceed the 40960"));
  EXPECT_EQ(ask("predict", {"--batch", "1", "--context", "100000", "--max-context", "131072"}).at("status"), "ok");
  const Finished none =
      run_moecast({"recommend", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--prompt", "100000"});
  EXPECT_EQ(none.code, 1);
  EXPECT_THAT(none.out, HasSubstr("exceed the 40960"));
}

TEST(BadQuestion, FlagsThatMeanNothingAreRefused) {
  refused(gpu("predict", {"--threads", "3"}), 2, "--threads", "leave it out");
  refused(gpu("predict", {"--strategy", "dense-mask"}), 2, "--strategy", "leave it out");
  refused(gpu("predict", {"--copies", "2"}), 2, "--copies", "leave it out");
  const auto dense = [](std::vector<std::string> words) {
    words.insert(words.begin(), {"predict", "--model", "llama-3.1-70b", "--hw", "h200-sxm", "--tp", "8"});
    return words;
  };
  refused(dense({"--ep", "8"}), 2, "llama-3.1-70b has no experts", "leave it out");
  refused(dense({"--load", "zipf:1"}), 2, "llama-3.1-70b has no experts", "leave it out");
  refused({"predict", "--model", "mixtral-8x7b", "--hw", "h200-sxm", "--offload", "lru", "--resident-experts", "9"}, 2,
          "--resident-experts: are 9, a rank has 8", "at most 8");
  refused({"recommend", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--gpus", "3"}, 2, "3 is no power of two",
          "1, 2, 4");
  refused({"recommend", "--model", "qwen3-30b-a3b", "--hw", "amd-epyc-2cpu"}, 2, "is a CPU", "list hw");
}

TEST(BadQuestion, AZeroLengthPromptIsRefusedEverywhere) {
  refused(gpu("predict", {"--phase", "prefill", "--prompt", "0"}), 2, "--prompt: 0 is out of range", "expected 1 to");
  refused(gpu("serve", {"--rate", "1", "--prompt", "0"}), 2, "--prompt: 0 is out of range", "expected 1 to");
  refused(gpu("recommend", {"--prompt", "0"}), 2, "--prompt: 0 is out of range", "expected 1 to");
  refused(gpu("sweep", {"--phase", "prefill", "--prompt", "0,8"}), 2, "--prompt: 0 is out of range", "expected 1 to");
}

TEST(BadQuestion, ARateBeyondSaturationIsUnstableInEveryFormat) {
  const Words load{"--rate", "5000", "--requests", "400"};
  Words words = gpu("serve", load);
  const Finished text = run_moecast(words);
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("unstable"));
  EXPECT_THAT(text.out, Not(HasSubstr("TTFT ")));
  words.insert(words.end(), {"--format", "csv"});
  const Finished csv = run_moecast(words);
  EXPECT_THAT(csv.out, HasSubstr("\nunstable,"));
  words.back() = "json";
  const Json json = Json::parse(run_moecast(words).out);
  EXPECT_EQ(json.at("status"), "unstable");
  EXPECT_TRUE(json.at("ttft_p99_s").is_null());
}

TEST(BadQuestion, ArrivalsOutOfOrderOrBeforeTheBeginning) {
  const std::string folder = fresh_folder("bad-question-arrivals");
  const std::string header = "arrival_s,prompt_tokens,output_tokens\n";
  write_text(folder + "/back.csv", header + "2,10,10\n1,10,10\n");
  refused(gpu("serve", {"--arrivals", folder + "/back.csv"}), 3, "back.csv:3", "sort the rows");
  write_text(folder + "/early.csv", header + "-0.5,10,10\n");
  refused(gpu("serve", {"--arrivals", folder + "/early.csv"}), 3, "early.csv:2", "hint: ");
}

TEST(BadQuestion, FlagsThatContradictEachOther) {
  refused(gpu("predict", {"--phase", "prefill", "--context", "64"}), 2, "--context: means nothing in this phase",
          "--prompt");
  refused(gpu("predict", {"--hidden", "64"}), 2, "exclude each other", "leave out");
  refused(gpu("predict", {"--zero", "2"}), 2, "--zero: means nothing outside of training", "--phase train");
  refused(gpu("predict", {"--gated", "--no-gated"}), 2, "", "hint: ");
  refused(gpu("serve", {"--rate", "1", "--concurrency", "2"}), 2, "contradicts another load", "one of --rate");
  refused(gpu("serve", {"--rate", "1", "--instances", "2", "--prefill-instances", "1", "--kv-link", "1GB/s"}), 2,
          "--instances: contradicts", "leave it out");
}

}  // namespace
}  // namespace moecast::test
