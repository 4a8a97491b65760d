#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

std::string events_file(const std::string& name, const std::string& text) {
  const std::string path = fresh_folder("expert-events-" + name) + "/events.json";
  std::ofstream(path) << text;
  return path;
}

const char* kGrowAndPrune = R"({"moecast_expert_events": 1, "max_experts": 66, "events": [
  {"step": 100, "add": {}}, {"step": 200, "remove": 64}, {"step": 300, "remove": "least_loaded"}]})";

std::vector<std::string> olmoe(std::vector<std::string> more) {
  std::vector<std::string> words{"predict", "--model", "olmoe-1b-7b", "--hw", "h100-sxm", "--batch", "16"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(ExpertEventsCommand, PrintsTheTimelineAsTableAndJson_A22) {
  const std::string file = events_file("timeline", kGrowAndPrune);
  const Finished table = run_moecast(olmoe({"--events", file, "--recapture", "12s"}));
  ASSERT_EQ(table.code, 0) << table.err;
  for (const char* text : {"start", "add 64", "remove 64", "transition", "201 MB"}) {
    EXPECT_THAT(table.out, HasSubstr(text));
  }
  const Finished json = run_moecast(olmoe({"--events", file, "--recapture", "12s", "--format", "json"}));
  ASSERT_EQ(json.code, 0) << json.err;
  const Json all = Json::parse(json.out);
  const Json& timeline = all.at("timeline");
  ASSERT_EQ(timeline.size(), 4U);
  EXPECT_TRUE(timeline[0].at("event").is_null());
  EXPECT_EQ(timeline[1].at("experts"), 65);
  EXPECT_EQ(timeline[1].at("moved_bytes").get<double>(), 16 * 3.0 * 2048 * 1024 * 2);
  EXPECT_EQ(timeline[1].at("recapture_s"), 12);
  EXPECT_GT(timeline[1].at("transition_s").get<double>(), 12);
  EXPECT_EQ(timeline[2].at("latency_s"), timeline[0].at("latency_s"));
  EXPECT_EQ(timeline[3].at("experts"), 63);
  EXPECT_EQ(all.at("inputs").at("recapture_s"), 12);
}

TEST(ExpertEventsCommand, AnUnknownRecaptureIsNull) {
  const Finished json = run_moecast(olmoe({"--events", events_file("unknown", kGrowAndPrune), "--format", "json"}));
  ASSERT_EQ(json.code, 0) << json.err;
  const Json grown = Json::parse(json.out).at("timeline").at(1);
  EXPECT_GT(grown.at("transfer_s").get<double>(), 0);
  EXPECT_TRUE(grown.at("recapture_s").is_null());
  EXPECT_TRUE(grown.at("transition_s").is_null());
  EXPECT_THAT(json.err, HasSubstr("--recapture"));
}

TEST(ExpertEventsCommand, WrongFilesAndFlagsAreNamed) {
  const std::string good = events_file("good", kGrowAndPrune);
  const Finished missing = run_moecast(olmoe({"--events", "/no/such/file.json"}));
  EXPECT_EQ(missing.code, 3);
  const Finished bad =
      run_moecast(olmoe({"--events", events_file("bad", R"({"moecast_expert_events": 1, "events": [{"step": 1}]})")}));
  EXPECT_EQ(bad.code, 3);
  EXPECT_THAT(bad.err, HasSubstr("/events/0"));
  const Finished unknown = run_moecast(olmoe(
      {"--events", events_file("nobody", R"({"moecast_expert_events": 1, "events": [{"step": 1, "remove": 99}]})")}));
  EXPECT_EQ(unknown.code, 3);
  EXPECT_THAT(unknown.err, HasSubstr("there is no expert 99"));
  for (const std::vector<std::string>& flags : {std::vector<std::string>{"--events", good, "--offload", "lru"},
                                                {"--events", good, "--context", "1,2"},
                                                {"--events", good, "--engine", "event"},
                                                {"--recapture", "1s"}}) {
    const Finished refused = run_moecast(olmoe(flags));
    EXPECT_EQ(refused.code, 2) << flags.back();
    EXPECT_EQ(refused.out, "");
  }
}

}  // namespace
}  // namespace moecast::test
