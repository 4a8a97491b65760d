#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

Json answer(std::vector<std::string> words) {
  words.insert(words.begin(), {"predict", "--format", "json"});
  const Finished finished = run_moecast(words);
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

const std::vector<std::string> kErnie{"--model", "ernie-4.5-vl-28b-a3b", "--hw", "h200-sxm"};

Json ernie(std::vector<std::string> more) {
  more.insert(more.begin(), kErnie.begin(), kErnie.end());
  return answer(std::move(more));
}

bool has_operator(const Json& a, const std::string& name) {
  for (const Json& op : a.at("operators")) {
    if (op.at("name") == name) return true;
  }
  return false;
}

TEST(MixCommand, VisionTokensRunTheExpertsOfVision_C24) {
  const Json text = ernie({"--phase", "prefill"});
  EXPECT_EQ(text.at("status"), "ok") << text.at("reason");
  EXPECT_TRUE(has_operator(text, "experts.text"));
  EXPECT_FALSE(has_operator(text, "experts.image"));
  const Json both = ernie({"--phase", "prefill", "--modality", "text:0.5,image:0.5"});
  EXPECT_TRUE(has_operator(both, "experts.text"));
  EXPECT_TRUE(has_operator(both, "experts.image"));
  // Experts of images are a third as wide: a step of images alone is faster.
  EXPECT_LT(ernie({"--phase", "prefill", "--modality", "image:1"}).at("latency_s"), text.at("latency_s"));
  EXPECT_EQ(both.at("inputs").at("modality"), "text:0.5,image:0.5");
  EXPECT_LT(text.at("parameters").at("active").get<double>(), 4e9);
}

TEST(MixCommand, TasksThatShareAllExpertsHitAsOneTask_A23) {
  const std::vector<std::string> cached{"--model", "qwen3-30b-a3b", "--hw", "h100-sxm",          "--batch",
                                        "8",       "--offload",     "lru",  "--resident-experts"};
  const auto hits = [&](const std::string& resident, const std::vector<std::string>& more) {
    std::vector<std::string> words = cached;
    words.push_back(resident);
    words.insert(words.end(), more.begin(), more.end());
    return answer(words).at("offload").at("hit_ratio").get<double>();
  };
  const std::vector<std::string> tasks{"--tasks", "translation:0.4,classification:0.2,qa:0.4"};
  EXPECT_NEAR(hits("64", tasks), hits("64", {}), 1e-9);
  std::vector<std::string> own = tasks;
  own.insert(own.end(), {"--private-experts", "32"});
  double last = -1;
  for (const char* resident : {"0", "32", "64", "96", "128"}) {
    const double hit = hits(resident, own);
    EXPECT_GT(hit, last);
    last = hit;
  }
  EXPECT_EQ(last, 1);
}

TEST(MixCommand, WrongMixesAreNamed) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> all{
      {{"--modality", "text:0.5"}, "add up to"},
      {{"--modality", "text"}, "no name and share"},
      {{"--modality", "sound:1"}, "have 0 experts"},
      {{"--modality", "text:0.5,text:0.5"}, "twice"},
      {{"--private-experts", "4"}, "means nothing without tasks"},
      {{"--task-steps"}, "means nothing without tasks"},
      {{"--tasks", "a:1", "--private-experts", "x"}, "--private-experts"}};
  for (const auto& [flags, problem] : all) {
    std::vector<std::string> words{"predict"};
    words.insert(words.end(), kErnie.begin(), kErnie.end());
    words.insert(words.end(), flags.begin(), flags.end());
    const Finished refused = run_moecast(words);
    EXPECT_EQ(refused.code, 2) << problem << ": " << refused.err;
    EXPECT_THAT(refused.err, HasSubstr(problem));
  }
  const Finished plain =
      run_moecast({"predict", "--model", "mixtral-8x7b", "--hw", "h200-sxm", "--modality", "text:1"});
  EXPECT_EQ(plain.code, 2);
  EXPECT_THAT(plain.err, HasSubstr("its experts are for all tokens"));
}

}  // namespace
}  // namespace moecast::test
