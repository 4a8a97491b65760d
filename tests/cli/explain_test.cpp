#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

const Words kQwen{"--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--tp", "8", "--batch", "32"};
const Words kLayer{"--hw", "amd-epyc-2cpu", "--hidden", "1024",     "--width", "2048", "--experts",
                   "16",   "--top-k",       "2",        "--tokens", "64"};

Words command(const char* name, const Words& words, const Words& more = {}) {
  Words all{name};
  all.insert(all.end(), words.begin(), words.end());
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

Json json_of(const Words& words) {
  const Finished finished =
      run_moecast(command(words.front().c_str(), {words.begin() + 1, words.end()}, {"--format", "json"}));
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

TEST(ExplainCommand, PartsAndOperatorsAddUpToTheStep) {
  for (const Words& asked : {kQwen, kLayer, command("--phase", Words{"prefill", "--prompt", "2048"}, kQwen)}) {
    const Json e = json_of(command("explain", asked));
    double parts = 0;
    double operators = 0;
    double shares = 0;
    double before = 1e300;
    for (const Json& part : e.at("parts")) {
      parts += part.at("latency_s").get<double>();
      shares += part.at("share_ratio").get<double>();
      EXPECT_LE(part.at("latency_s").get<double>(), before);
      before = part.at("latency_s");
    }
    for (const Json& op : e.at("operators")) operators += op.at("latency_s").get<double>();
    EXPECT_NEAR(parts / e.at("latency_s").get<double>(), 1, 1e-6);
    EXPECT_NEAR(operators / parts, 1, 1e-9);
    EXPECT_NEAR(shares, 1, 1e-6);
  }
}

TEST(ExplainCommand, IntensityIsArithmeticOverBytes) {
  // A layer of 16 experts 1024 x 2048 (gate, up, down), fp32, 64 tokens x 2: 2 x 3 x 1024 x 2048 x 128 FLOP over all
  // weights, 16 x 3 x 1024 x 2048 x 4 B, and activations: about 4 FLOP/B less what these add.
  const Json e = json_of(command("explain", kLayer, {"--dtype", "fp32"}));
  const auto experts =
      std::ranges::find_if(e.at("parts"), [](const Json& part) { return part.at("name") == "experts"; });
  ASSERT_NE(experts, e.at("parts").end());
  const double flops = 2.0 * 3 * 1024 * 2048 * 128;
  EXPECT_NEAR(experts->at("flops").get<double>() / flops, 1, 0.01) << "activations add less than a percent";
  const double bytes = experts->at("bytes").get<double>();
  EXPECT_GT(bytes, 16 * 3 * 1024.0 * 2048 * 4);
  EXPECT_DOUBLE_EQ(experts->at("arithmetic_intensity_flop_per_byte").get<double>(),
                   experts->at("flops").get<double>() / bytes);
}

TEST(ExplainCommand, EveryMeasuredNumberHasAnIntervalAndEachItsOrigin) {
  for (const Words& asked : {kQwen, kLayer}) {
    for (const Json& op : json_of(command("explain", asked)).at("operators")) {
      EXPECT_NE(op.at("origin"), "");
      if (op.at("origin") == "assumed" || op.at("latency_s") == 0) continue;  // physics: nobody knows how far off
      ASSERT_TRUE(op.at("latency_high_s").is_number()) << op.at("name");
      EXPECT_LT(op.at("latency_low_s"), op.at("latency_s")) << op.at("name");
      EXPECT_GT(op.at("latency_high_s"), op.at("latency_s")) << op.at("name");
    }
  }
}

TEST(ExplainCommand, WhatHelpsIsWhatPredictAnswers) {
  const Json e = json_of(command("explain", kQwen));
  const double asked = e.at("latency_s");
  std::set<std::string> names;
  double best = asked;
  std::string title;
  for (const Json& one : e.at("relaxations")) {
    names.insert(one.at("name"));
    if (one.at("latency_s").is_null()) continue;
    EXPECT_NEAR(one.at("saved_ratio").get<double>(), 1 - one.at("latency_s").get<double>() / asked, 1e-12);
    EXPECT_EQ(one.at("ranks"), 8) << "as many devices";
    if (one.at("kind") == "change" && one.at("latency_s") < best) {
      best = one.at("latency_s");
      title = one.at("title");
    }
    if (one.at("kind") == "factor") {
      EXPECT_LE(one.at("latency_s"), asked) << "removing one never slows";
    }
  }
  for (const char* name : {"all_to_all", "memory_bandwidth", "routing_overhead", "expert_imbalance", "tp_dp", "ep"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_EQ(e.at("helps_most").at("change"), title.empty() ? Json() : Json(title));
  const auto find = [&](const std::string& wanted) {
    return *std::ranges::find_if(e.at("relaxations"), [&](const Json& one) { return one.at("title") == wanted; });
  };
  EXPECT_EQ(find("ep 8 instead of 1").at("latency_s"),
            json_of(command("predict", kQwen, {"--ep", "8"})).at("latency_s"));
  EXPECT_EQ(find("without memory bandwidth").at("latency_s"),
            json_of(command("predict", kQwen, {"--without", "memory-bandwidth"})).at("latency_s"));
}

TEST(ExplainCommand, ATreeForPeople) {
  const Finished text = run_moecast(command("explain", kQwen));
  EXPECT_EQ(text.code, 0) << text.err;
  for (const char* shown : {"\nstep ", "\n· experts", "\n· · ", "FLOP/B", "90 % interval", "100 %", "origin",
                            "most of the factors: without ", "most of what can be changed on as many devices: "}) {
    EXPECT_THAT(text.out, HasSubstr(shown));
  }
  const Finished layer = run_moecast(command("explain", kLayer));
  EXPECT_THAT(layer.out, HasSubstr("strategy per-expert-loop instead of sorted-grouped"));
}

TEST(ExplainCommand, WhatDoesNotFitIsNotExplained) {
  const Json e = json_of({"explain", "--model", "deepseek-v3", "--hw", "h200-sxm", "--batch", "8"});
  EXPECT_EQ(e.at("status"), "does_not_fit");
  EXPECT_TRUE(e.at("parts").empty());
  EXPECT_TRUE(e.at("helps_most").at("factor").is_null());
}

}  // namespace
}  // namespace moecast::test
