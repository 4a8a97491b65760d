#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

const Words kQwen{"--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--tp", "8", "--batch", "32"};
const Words kServed{"--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--tp", "2", "--requests", "200"};

class CompareSaved : public testing::Test {
 protected:
  /// File that holds what a command answers.
  std::string saved(const std::string& name, const Words& words) {
    const Finished finished = run_moecast(with(words, {"--format", "json"}));
    EXPECT_EQ(finished.code, 0) << finished.err;
    const std::string path = folder_ + "/" + name;
    write_text(path, finished.out);
    return path;
  }
  [[nodiscard]] static Json json_of(const Words& words) {
    const Finished finished = run_moecast(with(words, {"--format", "json"}));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  }

  std::string folder_ = fresh_folder("compare-saved");
};

TEST_F(CompareSaved, FilesSayWhatTheQuestionsThemselvesSay) {
  const std::string a = saved("a.json", with({"predict"}, kQwen));
  const std::string b = saved("b.json", with(with({"predict"}, kQwen), {"--ep", "8", "--dp", "8"}));
  const Json files = json_of({"compare", a, b});
  EXPECT_EQ(files, json_of(with(with({"compare"}, kQwen), {"--versus", "--ep 8 --dp 8"})));
  EXPECT_FALSE(files.at("stages").empty());
  EXPECT_EQ(json_of({"compare", a, a}).at("verdict"), "equal");
  const Finished text = run_moecast({"compare", a, b});
  EXPECT_THAT(text.out, HasSubstr("undecided: the intervals overlap"));
  EXPECT_THAT(text.out, HasSubstr("explains"));
}

TEST_F(CompareSaved, WhatDoesNotFitIsAnAnswerToo) {
  const std::string a = saved("a.json", {"predict", "--model", "deepseek-v3", "--hw", "h200-sxm", "--batch", "8"});
  const std::string b = saved(
      "b.json", {"predict", "--model", "deepseek-v3", "--hw", "h200-sxm", "--tp", "8", "--ep", "8", "--batch", "8"});
  const Json files = json_of({"compare", a, b});
  EXPECT_EQ(files.at("verdict"), "only_b");
  EXPECT_THAT(files.at("reason").get<std::string>(), HasSubstr("only B has an answer; A: needs "));
}

TEST_F(CompareSaved, TrainingAndPipelinesStayWhatTheyWere) {
  const Words train{"predict", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "train", "--batch", "4"};
  const std::string a = saved("a.json", with(train, {"--prompt", "512"}));
  const std::string b = saved("b.json", with(with({"predict"}, kQwen), {"--pp", "2"}));
  const Json files = json_of({"compare", a, b});
  EXPECT_GT(files.at("a").at("training").at("phases").size(), 0U);
  EXPECT_EQ(files.at("b").at("pipeline").at("stages").size(), 2U);
  EXPECT_EQ(files.at("verdict"), "faster");
}

TEST_F(CompareSaved, TwoModelsAreAskedTheSame) {
  const Words flags{"--hw", "h200-sxm", "--tp", "2", "--batch", "8"};
  const Json two = json_of(with({"compare", "mixtral-8x7b", "olmoe-1b-7b"}, flags));
  EXPECT_EQ(two,
            json_of(with(with({"compare", "--model", "mixtral-8x7b"}, flags), {"--versus", "--model olmoe-1b-7b"})));
  EXPECT_EQ(two.at("inputs_that_differ").at("model"), Json({{"a", "mixtral-8x7b"}, {"b", "olmoe-1b-7b"}}));
}

TEST_F(CompareSaved, ServicesAreUndecidedWhereTheirIntervalsOverlap) {
  const std::string a = saved("a.json", with(with({"serve"}, kServed), {"--rate", "4"}));
  const std::string b = saved("b.json", with(with({"serve"}, kServed), {"--rate", "8"}));
  const std::string c = saved("c.json", with(with({"serve"}, kServed), {"--rate", "8", "--prompt", "16000"}));
  const auto verdict = [](const Json& compared, const std::string& name) -> std::string {
    for (const Json& one : compared.at("verdicts")) {
      if (one.at("name") == name) return one.at("verdict");
    }
    return "";
  };
  const Json load = json_of({"compare", a, b});
  EXPECT_EQ(verdict(load, "tpot_p50_s"), "undecided");
  EXPECT_EQ(load.at("inputs_that_differ").at("rate_requests_per_s"), Json({{"a", 4.0}, {"b", 8.0}}));
  EXPECT_EQ(load.at("a"),
            Json::parse(run_moecast(with(with({"serve"}, kServed), {"--rate", "4", "--format", "json"})).out));
  const Json prompt = json_of({"compare", b, c});
  EXPECT_EQ(verdict(prompt, "saturation_requests_per_s"), "lower");
  const Finished text = run_moecast({"compare", a, b});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("TPOT: undecided: the intervals overlap"));
  EXPECT_THAT(text.out, HasSubstr("requests/s at saturation"));
}

TEST_F(CompareSaved, AnUnstableServiceHasNoLatencyToCompare) {
  const std::string a = saved("a.json", with(with({"serve"}, kServed), {"--rate", "4"}));
  const std::string b = saved("b.json", with(with({"serve"}, kServed), {"--rate", "4000"}));
  const Json compared = json_of({"compare", a, b});
  EXPECT_EQ(compared.at("verdicts").at(0).at("verdict"), "only_a");
  EXPECT_THAT(compared.at("verdicts").at(0).at("reason").get<std::string>(), HasSubstr("B is unstable"));
}

TEST_F(CompareSaved, RefusesWhatIsNoPairOfAnswers) {
  const std::string a = saved("a.json", with({"predict"}, kQwen));
  const std::string served = saved("served.json", with(with({"serve"}, kServed), {"--rate", "4"}));
  const std::string several =
      saved("several.json", {"predict", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--batch", "1,8"});
  const auto refusal = [](const Words& more, int code, const char* what) {
    const Finished finished = run_moecast(with({"compare"}, more));
    EXPECT_EQ(finished.code, code) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(what));
    EXPECT_EQ(finished.out, "");
  };
  refusal({a}, 2, "needs a second one");
  refusal({a, a, a}, 2, "needs a second one");
  refusal({a, a, "--versus", "--ep 8"}, 2, "contradicts a second file");
  refusal({a, a, "--batch", "8"}, 2, "--batch: means nothing to answers that were saved");
  refusal({a, "olmoe-1b-7b"}, 2, "is no saved answer");
  refusal({a, folder_ + "/none.json"}, 2, "is no saved answer");
  refusal({"olmoe-1b-7b", "mixtral-8x7b", "--model", "olmoe-1b-7b"}, 2, "contradicts two models");
  refusal({a, served}, 3, "is a step, the other file is a service");
  refusal({a, several}, 3, "holds 2 answers");
  Json broken = Json::parse(run_moecast(with(with({"predict"}, kQwen), {"--format", "json"})).out);
  const std::string file = folder_ + "/broken.json";
  const auto refuse_broken = [&](const char* what) {
    write_text(file, broken.dump());
    refusal({a, file}, 3, what);
  };
  broken["operators"][3]["latency_s"] = -1;
  refuse_broken("broken.json: /operators/3/latency_s");
  broken["operators"][3].erase("latency_s");
  refuse_broken("latency_s");
  broken["operators"] = Json::array();
  broken["latency_s"] = nullptr;
  refuse_broken("status ok");
  broken["status"] = "perhaps";
  refuse_broken("\"perhaps\" is no word of an answer");
}

}  // namespace
}  // namespace moecast::test
