#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Json = nlohmann::json;

const std::vector<std::string> kQwen{"compare", "--model", "qwen3-235b-a22b", "--hw", "h200-sxm",
                                     "--tp",    "8",       "--batch",         "32"};
const std::vector<std::string> kLayer{"compare",   "--hw", "amd-epyc-2cpu", "--hidden", "1024",     "--width", "2048",
                                      "--experts", "16",   "--top-k",       "2",        "--tokens", "64"};

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

Json compared(const std::vector<std::string>& asked, const std::string& versus) {
  const Finished finished = run_moecast(with(asked, {"--versus", versus, "--format", "json"}));
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

TEST(CompareCommand, StagesExplainTheWholeDifferenceThoseThatExplainMostFirst) {
  const Json c = compared(kQwen, "--ep 8 --dp 8");
  const double whole = c.at("b").at("latency_s").get<double>() - c.at("a").at("latency_s").get<double>();
  double explained = 0;
  double before = 1e300;
  for (const Json& stage : c.at("stages")) {
    const double difference = stage.at("difference").get<double>();
    explained += difference;
    EXPECT_LE(std::abs(difference), before);
    before = std::abs(difference);
    if (difference != 0) {
      EXPECT_NE(stage.at("cause"), "");
    }
  }
  EXPECT_NEAR(explained / whole, 1, 1e-6) << "operators add up to the latency";
  EXPECT_EQ(c.at("inputs_that_differ").at("ep"), Json({{"a", 1}, {"b", 8}}));
  EXPECT_FALSE(c.at("inputs_that_differ").contains("batch"));
}

TEST(CompareCommand, CountsDevicesAndWhatEachYields) {
  const auto of = [](const Json& c, const std::string& name) {
    for (const Json& one : c.at("quantities")) {
      if (one.at("name") == name) return one;
    }
    return Json();
  };
  const Json more = compared(kQwen, "--ep 8 --dp 8");  // beside --tp 8
  EXPECT_EQ(of(more, "devices").at("a"), 8);
  EXPECT_EQ(of(more, "devices").at("b"), 64);
  const Json each = of(more, "throughput_tokens_per_s_per_device");
  EXPECT_NEAR(each.at("b").get<double>(), more.at("b").at("throughput_tokens_per_s").get<double>() / 64, 1e-6);
  EXPECT_EQ(of(compared(kQwen, "--tp 1 --ep 8 --dp 8"), "devices").at("b"), 8);
  // Nobody said dp: each rank that shares experts has attention of its own, and the inputs say so.
  const Json alone = compared(kQwen, "--tp 1 --ep 8");
  EXPECT_EQ(of(alone, "devices").at("b"), 8);
  EXPECT_EQ(alone.at("b").at("inputs").at("dp"), 8);
}

TEST(CompareCommand, EachSideIsWhatPredictAnswers) {
  const Json c = compared(kQwen, "--ep 8 --dp 8");
  const Finished b = run_moecast({"predict", "--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--tp", "8", "--batch",
                                  "32", "--ep", "8", "--dp", "8", "--format", "json"});
  EXPECT_EQ(c.at("b"), Json::parse(b.out));
}

TEST(CompareCommand, IntervalsThatOverlapAreUndecided) {
  const Json c = compared(kQwen, "--ep 8 --dp 8");
  ASSERT_LT(c.at("b").at("latency_low_s"), c.at("a").at("latency_high_s"));
  ASSERT_LT(c.at("a").at("latency_low_s"), c.at("b").at("latency_high_s"));
  EXPECT_EQ(c.at("verdict"), "undecided");
  EXPECT_THAT(c.at("reason").get<std::string>(), StartsWith("undecided: the intervals overlap"));
  EXPECT_EQ(compared(kQwen, "--batch 32").at("verdict"), "equal");
}

TEST(CompareCommand, IntervalsApartAreDecided) {
  const Json c = compared(kLayer, "--tokens 1");
  EXPECT_EQ(c.at("verdict"), "faster");
  EXPECT_THAT(c.at("reason").get<std::string>(), StartsWith("B is "));
  EXPECT_GT(c.at("speedup_ratio"), 1);
  EXPECT_THAT(c.at("throughput").get<std::string>(), HasSubstr("fewer tokens a second"));
  EXPECT_EQ(compared(kLayer, "--tokens 4096").at("verdict"), "slower");
}

TEST(CompareCommand, WhatDoesNotFitIsAnAnswerWithItsReason) {
  const Finished finished = run_moecast(
      {"compare", "--model", "deepseek-v3", "--hw", "h200-sxm", "--batch", "8", "--versus", "--tp 8 --ep 8"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("only B has an answer; A: needs "));
  EXPECT_THAT(finished.out, HasSubstr("does_not_fit"));
  EXPECT_THAT(finished.out, Not(HasSubstr("explains")));
}

TEST(CompareCommand, TheTableShowsBothSidesAndAVerdict) {
  const Finished finished = run_moecast(with(kQwen, {"--versus", "--ep 8 --dp 8"}));
  EXPECT_EQ(finished.code, 0) << finished.err;
  for (const char* text : {"B - A", "B / A", "90 % interval", "tokens/s", "bottleneck", "memory a rank", "KV cache",
                           "all-to-all", "explains", "attention", "experts", "router", "dispatch", "combine", "head"}) {
    EXPECT_THAT(finished.out, HasSubstr(text));
  }
  EXPECT_THAT(finished.out, HasSubstr("\nundecided: the intervals overlap"));
  const Finished md = run_moecast(with(kQwen, {"--versus", "--ep 8", "--format", "md"}));
  EXPECT_THAT(md.out, StartsWith("| input"));
  const Finished csv = run_moecast(with(kQwen, {"--versus", "--ep 8", "--format", "csv"}));
  EXPECT_THAT(csv.out, StartsWith("kind,name,a,b,difference,ratio,explained_ratio,cause\nquantity,latency_s,"));
  const Finished line = run_moecast(with(kQwen, {"--versus", "--ep 8", "--format", "jsonl"}));
  EXPECT_EQ(Json::parse(line.out).at("verdict"), "undecided");
}

TEST(CompareCommand, WhatBChangesTakesAwayWhatItContradicts) {
  const std::vector<std::string> decode{"compare",   "--model", "olmoe-1b-7b", "--hw", "h200-sxm",
                                        "--context", "4096",    "--batch",     "8"};
  const Json phase = compared(decode, "--phase prefill --prompt 256");
  EXPECT_EQ(phase.at("b").at("inputs").at("phase"), "prefill");
  const Json layer = compared(decode, "--hidden 1024 --width 2048 --experts 16 --top-k 2 --tokens 8");
  EXPECT_EQ(layer.at("b").at("inputs").at("model"), "layer");
  const Json model = compared(with(kLayer, {"--no-gated"}), "--model olmoe-1b-7b --hw h200-sxm");
  EXPECT_EQ(model.at("b").at("inputs").at("model"), "olmoe-1b-7b");
  const Json gated = compared(with(kLayer, {"--no-gated"}), "--gated");
  EXPECT_EQ(gated.at("b").at("inputs").at("gated"), true);
  EXPECT_EQ(gated.at("a").at("inputs").at("gated"), false);
}

TEST(CompareCommand, RefusesWhatItCannotCompare) {
  const auto refusal = [](std::vector<std::string> more, const char* what) {
    const Finished finished = run_moecast(with(kQwen, more));
    EXPECT_EQ(finished.code, 2) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(what));
    EXPECT_EQ(finished.out, "");
  };
  refusal({}, "--versus: is missing");
  refusal({"--versus", ""}, "--versus");
  refusal({"--versus", "   "}, "--versus");
  refusal({"--versus", "--bacth 8"}, "did you mean \"--batch\"?");
  refusal({"--versus", "--batch"}, "--batch");
  refusal({"--versus", "--batch 8 --batch 9"}, "more than once");
  refusal({"--versus", "predict --batch 8"}, "was not expected here");
  refusal({"--versus", "-- --batch 8"}, "was not expected here");
  refusal({"--versus", "--help"}, "unknown option");
  refusal({"--versus", "--versus x"}, "unknown option");
  refusal({"--versus", "--format json"}, "of the whole comparison");
  refusal({"--versus", "--ep 7"}, "--versus: --ep: 7 ranks do not divide");
  refusal({"--versus", "--batch 1,8"}, "these ranges make 2");
  refusal({"--versus", "--hidden 64"}, "--width");
  refusal({"--versus", "--model 'qwen3-235b-a22"}, "did you mean \"qwen3-235b-a22b\"?");
  refusal({"--versus", "--phase decode --prompt 8"}, "means nothing in this phase");
  refusal({"--versus", "--ep 8", "--versus", "--ep 4"}, "more than once");
  refusal({"--batch", "1,8", "--versus", "--ep 8"}, "--batch");
}

}  // namespace
}  // namespace moecast::test
