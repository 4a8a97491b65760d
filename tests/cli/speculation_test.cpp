#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

Finished decode(const std::string& model, const std::string& batch, const Words& more) {
  Words words{"predict", "--model",   model,  "--hw",    "h200-sxm", "--backend", "vllm", "--tp",
              "8",       "--context", "4096", "--batch", batch,      "--format",  "json"};
  words.insert(words.end(), more.begin(), more.end());
  return run_moecast(words);
}

Json guessed(const std::string& model, const std::string& batch, const std::string& tokens,
             const std::string& acceptance) {
  const Finished finished = decode(model, batch, {"--draft-tokens", tokens, "--acceptance", acceptance});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("no step that guesses was measured"));
  return Json::parse(finished.out);
}

Json plain(const std::string& model, const std::string& batch) {
  const Finished finished = decode(model, batch, {});
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

double seconds_of(const Json& answer, const std::string& prefix) {
  double sum = 0;
  for (const Json& op : answer.at("operators")) {
    if (op.at("name").get<std::string>().starts_with(prefix)) sum += op.at("latency_s").get<double>();
  }
  return sum;
}

TEST(Speculation, TpotIsTheStepOverTheTokensThatItIsExpectedToYield) {
  for (const char* model : {"deepseek-v3", "glm-4.5-air"}) {
    const Json one = guessed(model, "16", "1", "0.85");
    const Json& of = one.at("speculation");
    EXPECT_NEAR(of.at("tokens_per_step").get<double>(), 1.85, 1e-12);
    EXPECT_NEAR(of.at("tpot_s").get<double>(), one.at("latency_s").get<double>() / 1.85, 1e-12);
    EXPECT_LT(of.at("tpot_low_s"), of.at("tpot_s"));
    EXPECT_GT(of.at("tpot_high_s"), of.at("tpot_s"));
    EXPECT_NEAR(one.at("throughput_tokens_per_s").get<double>() * of.at("tpot_s").get<double>(), 16, 1e-6);
    const Json none = plain(model, "16");
    EXPECT_TRUE(none.at("speculation").is_null());
    // The step is longer, by what is guessed at least; a token is cheaper, as memory is what a small batch waits for.
    EXPECT_GT(one.at("latency_s").get<double>(),
              none.at("latency_s").get<double>() + of.at("drafting_s").get<double>());
    EXPECT_LT(of.at("tpot_s"), none.at("latency_s")) << model;
    // No guess that is right: every guess is lost time.
    EXPECT_GT(guessed(model, "16", "1", "0").at("speculation").at("tpot_s"), none.at("latency_s")) << model;
  }
}

TEST(Speculation, GuessesThatAreCheckedShareTheCacheOfTheirSequence) {
  // The KV cache is read once for all of them: attention of a long context, bound by memory, hardly grows.
  const Json none = plain("glm-4.5-air", "64");
  const Json three = guessed("glm-4.5-air", "64", "3", "0.7");
  const double attention = seconds_of(none, "attention.decode");
  EXPECT_GE(seconds_of(three, "attention.decode"), attention);
  EXPECT_LT(seconds_of(three, "attention.decode"), 2 * attention);
  // Linear layers and experts see four rows a sequence.
  EXPECT_GT(three.at("flops").get<double>(), 3.9 * none.at("flops").get<double>());
}

TEST(Speculation, ModulesThatGuessHaveWeightsACacheAndTheHead) {
  const Json none = plain("deepseek-v3", "16");
  const Json one = guessed("deepseek-v3", "16", "1", "0.85");
  const auto bytes = [](const Json& answer, const char* what) {
    return answer.at("memory_per_rank").at(what).get<double>();
  };
  // DeepSeek-V3 publishes 14 B parameters of its module, the shared embedding and head among them: 2 x 0.93 B.
  const double module = 8 * (bytes(one, "weights_bytes") - bytes(none, "weights_bytes"));
  EXPECT_NEAR(module, 14e9 - 2 * 129280.0 * 7168.0, 1e9);
  // A layer more beside 61.
  EXPECT_NEAR(bytes(one, "kv_cache_bytes") / bytes(none, "kv_cache_bytes"), 62.0 / 61, 0.01);
  for (const char* part : {"draft.join", "draft.head", "draft.experts", "draft.attention"}) {
    EXPECT_GT(seconds_of(one, part), 0) << part;
  }
  // Two guesses are two passes, the second over a row of each sequence.
  const Json two = guessed("deepseek-v3", "16", "2", "0.85");
  EXPECT_GT(seconds_of(two, "draft."), 1.3 * seconds_of(one, "draft."));
}

TEST(Speculation, WhatCannotGuessSaysSo) {
  const auto fails = [](const Finished& finished, const char* text) {
    EXPECT_EQ(finished.code, 2) << finished.out;
    EXPECT_THAT(finished.err, HasSubstr(text));
  };
  fails(decode("deepseek-v3", "16", {"--draft-tokens", "1"}), "--acceptance");
  fails(decode("deepseek-v3", "16", {"--acceptance", "0.8"}), "none are made");
  fails(decode("deepseek-v3", "16", {"--draft-tokens", "1", "--acceptance", "1.5"}), "out of range");
  fails(decode("deepseek-v3", "16", {"--draft-tokens", "1", "--acceptance", "nan"}), "--acceptance");
  fails(decode("mixtral-8x7b", "16", {"--draft-tokens", "1", "--acceptance", "0.8"}), "no layers of multi-token");
  fails(decode("deepseek-v3", "16", {"--draft-tokens", "1", "--acceptance", "0.8", "--pp", "2"}), "pipeline stages");
  fails(run_moecast({"predict", "--hw", "h200-sxm", "--hidden", "1024", "--width", "512", "--experts", "8", "--top-k",
                     "2", "--draft-tokens", "1"}),
        "means nothing for a single layer");
}

TEST(Speculation, AServiceGoesOnByTheGuessesThatAreRight) {
  const auto serve = [](const Words& more) {
    Words words{"serve",    "--model", "glm-4.5-air", "--hw", "h200-sxm",   "--tp", "4",        "--concurrency", "1",
                "--prompt", "512",     "--output",    "257",  "--requests", "40",   "--format", "json"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished finished = run_moecast(words);
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  const auto tpot = [](const Json& answer) { return answer.at("tpot_p50_s").get<double>(); };
  const Json none = serve({});
  const Json likely = serve({"--draft-tokens", "3", "--acceptance", "0.8"});
  const Json certain = serve({"--draft-tokens", "3", "--acceptance", "1"});
  const Json wrong = serve({"--draft-tokens", "3", "--acceptance", "0"});
  EXPECT_LT(tpot(certain), tpot(likely));
  EXPECT_LT(tpot(likely), tpot(none));
  EXPECT_GT(tpot(wrong), tpot(none));
  // 1 + 0.8 + 0.64 + 0.512 tokens a step against 4 and 1, steps of the same length.
  EXPECT_NEAR(tpot(likely) / tpot(certain), 4 / 2.952, 0.08);
  EXPECT_NEAR(tpot(wrong) / tpot(certain), 4, 0.1);
  EXPECT_EQ(likely.at("inputs").at("draft_tokens"), 3);
  EXPECT_EQ(likely.at("inputs").at("acceptance_ratio"), 0.8);
  EXPECT_EQ(likely.at("tpot_p50_s"), serve({"--draft-tokens", "3", "--acceptance", "0.8"}).at("tpot_p50_s"));
}

TEST(Speculation, ComparesTheTimeOfAnOutputToken) {
  const Finished finished =
      run_moecast({"compare", "--model", "deepseek-v3", "--hw", "h200-sxm", "--backend", "sglang", "--tp", "8",
                   "--batch", "16", "--versus", "--draft-tokens 1 --acceptance 0.85", "--format", "json"});
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json json = Json::parse(finished.out);
  const auto quantity = [&](const std::string& name) {
    for (const Json& one : json.at("quantities")) {
      if (one.at("name") == name) return one;
    }
    return Json();
  };
  EXPECT_GT(quantity("latency_s").at("b"), quantity("latency_s").at("a")) << "a step that guesses is longer";
  EXPECT_EQ(quantity("tpot_s").at("a"), quantity("latency_s").at("a"));
  EXPECT_EQ(quantity("tpot_s").at("b"), json.at("b").at("speculation").at("tpot_s"));
  EXPECT_LT(quantity("tpot_s").at("b"), quantity("tpot_s").at("a")) << "but gives more tokens";
}

}  // namespace
}  // namespace moecast::test
