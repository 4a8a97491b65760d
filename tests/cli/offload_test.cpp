#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

std::vector<std::string> mixtral(std::vector<std::string> more) {
  std::vector<std::string> words{"predict", "--model", "mixtral-8x7b", "--hw", "h100-sxm"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(OffloadCommand, MixtralOnEightyGigabytesIsAnswered_A17) {
  const Finished plain = run_moecast(mixtral({"--format", "json"}));
  EXPECT_EQ(Json::parse(plain.out).at("status"), "does_not_fit");
  EXPECT_TRUE(Json::parse(plain.out).at("offload").is_null());
  const Finished finished = run_moecast(mixtral({"--offload", "lru", "--format", "json"}));
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json a = Json::parse(finished.out);
  EXPECT_EQ(a.at("status"), "ok");
  const Json& o = a.at("offload");
  EXPECT_EQ(o.at("policy"), "lru");
  EXPECT_EQ(o.at("overlap"), "none");
  EXPECT_EQ(o.at("experts"), 8);
  EXPECT_EQ(o.at("host_link_origin"), "datasheet");
  EXPECT_GT(o.at("hit_ratio").get<double>(), o.at("resident_experts").get<double>() / 8);
  EXPECT_LT(o.at("hit_ratio").get<double>(), 1);
  EXPECT_GT(o.at("exposed_s").get<double>(), 0);
  EXPECT_LE(o.at("exposed_s"), o.at("transfer_s"));
  EXPECT_LE(a.at("memory_per_rank").at("total_bytes"), a.at("memory_per_rank").at("capacity_bytes"));
  EXPECT_EQ(a.at("inputs").at("offload"), "lru");
  EXPECT_THAT(finished.err, HasSubstr("launches are eager"));
  const Finished table = run_moecast(mixtral({"--offload", "static"}));
  EXPECT_THAT(table.out, HasSubstr("experts a layer stay"));
  EXPECT_THAT(table.out, HasSubstr("host_link"));
}

TEST(OffloadCommand, RangesOfResidentExpertsMakeATable) {
  const Finished finished = run_moecast(
      mixtral({"--offload", "lru", "--resident-experts", "1-5", "--host-link", "25GB/s", "--format", "jsonl"}));
  ASSERT_EQ(finished.code, 0) << finished.err;
  std::istringstream lines(finished.out);
  double last = 1e300;
  int rows = 0;
  for (std::string line; std::getline(lines, line); ++rows) {
    const double latency = Json::parse(line).at("latency_s").get<double>();
    EXPECT_LT(latency, last);
    last = latency;
  }
  EXPECT_EQ(rows, 5);
}

struct Wrong {
  std::vector<std::string> flags;
  std::string problem;
};

TEST(OffloadCommand, ContradictionsAndTyposAreNamed) {
  const std::vector<Wrong> all{
      {{"--offload", "lruu"}, "did you mean \"lru\"?"},
      {{"--offload", "lru", "--offload-overlap", "layers"}, "did you mean \"layer\"?"},
      {{"--resident-experts", "3"}, "--resident-experts: means nothing where all experts stay"},
      {{"--host-link", "25GB/s"}, "--host-link: means nothing where all experts stay"},
      {{"--offload", "lru", "--resident-experts", "3", "--resident-bytes", "40GB"}, "contradicts --resident-experts"},
      {{"--offload", "lru", "--host-link", "0GB/s"}, "must be above 0"},
      {{"--offload", "lru", "--host-link", "25GB"}, "--host-link"},
      {{"--offload", "lru", "--engine", "event", "--shadow", "1", "--resident-experts", "3"},
       "--offload: is not executed beside --shadow yet"}};
  for (const Wrong& wrong : all) {
    const Finished refused = run_moecast(mixtral(wrong.flags));
    EXPECT_EQ(refused.code, 2) << wrong.problem;
    EXPECT_EQ(refused.out, "");
    EXPECT_THAT(refused.err, HasSubstr(wrong.problem));
  }
  const Finished dense = run_moecast({"predict", "--model", "llama-3.1-8b", "--hw", "h100-sxm", "--offload", "lru"});
  EXPECT_EQ(dense.code, 2);
  EXPECT_THAT(dense.err, HasSubstr("has no experts"));
}

TEST(OffloadCommand, EventsFetchToo) {
  const auto ask = [](const std::vector<std::string>& more) {
    std::vector<std::string> flags{"--offload", "lru", "--resident-experts", "3", "--format", "json"};
    flags.insert(flags.end(), more.begin(), more.end());
    const Finished finished = run_moecast(mixtral(flags));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  const Json closed = ask({});
  const Json events = ask({"--engine", "event", "--samples", "40"});
  EXPECT_NEAR(events["latency_s"].get<double>() / closed["latency_s"].get<double>(), 1, 0.06);
  EXPECT_NEAR(events["offload"]["hit_ratio"].get<double>(), closed["offload"]["hit_ratio"].get<double>(), 0.05);
  EXPECT_LT(events["distribution"]["p50_s"], events["distribution"]["p99_s"]);
  const Finished cpu = run_moecast({"predict", "--model", "qwen3-30b-a3b", "--hw", "intel-xeon-processor-2cpu",
                                    "--offload", "lru", "--host-link", "1GB/s", "--engine", "event"});
  EXPECT_EQ(cpu.code, 2);
  EXPECT_THAT(cpu.err, HasSubstr("of a CPU is of the analytic engine"));
}

TEST(OffloadCommand, AMachineWhoseDiskNobodyKnowsAsksForIt) {
  const Finished finished = run_moecast({"predict", "--model", "qwen3-30b-a3b", "--hw", "intel-xeon-processor-2cpu",
                                         "--offload", "lru", "--format", "json"});
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json a = Json::parse(finished.out);
  EXPECT_EQ(a.at("status"), "outside_range");
  EXPECT_TRUE(a.at("latency_s").is_null());
  EXPECT_TRUE(a.at("offload").at("host_link_bytes_per_s").is_null());
  EXPECT_THAT(a.at("reason").get<std::string>(), HasSubstr("--host-link"));
}

}  // namespace
}  // namespace moecast::test
