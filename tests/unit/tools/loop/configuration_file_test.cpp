#include "tools/loop/configuration_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

using testing::HasSubstr;

constexpr const char* kLayer =
    R"({"moecast_architecture":1,"name":"x","hidden":64,"vocabulary":0,"dtype":"fp32","decoder":[{"blocks":[)"
    R"({"type":"moe","experts":[{"count":4,"expert":{"width":32}}],"router":{"top_k":2}}]}]})";

class ConfigurationFile : public testing::Test {
 protected:
  std::vector<ValidationCase> read(const std::string& text) const {
    write_file_atomically(path_, text);
    return read_configurations(path_, {{"onednn", DType::fp32, 1}, {"onednn", DType::fp32, 2}});
  }
  std::string problem(const std::string& text) const {
    try {
      read(text);
    } catch (const Error& error) {
      return error.what() + (" " + error.hint());
    }
    return "";
  }
  void TearDown() override { std::filesystem::remove(path_); }
  static std::string line(const std::string& more = "") {
    return std::string(R"({"architecture":)") + kLayer + more + "}\n";
  }
  std::string path_ = testing::TempDir() + "configurations_" + std::to_string(getpid()) + ".jsonl";
};

TEST_F(ConfigurationFile, GivesEachLineForEachCombination) {
  const auto cases =
      read(line(R"(,"name":"a","batch":3,"context":7,"zipf":1.5)") + "\n" + line(R"(,"phase":"prefill","prompt":9)"));
  ASSERT_EQ(cases.size(), 4U);
  EXPECT_EQ(cases[0].architecture.name, "a");
  EXPECT_EQ(cases[0].workload.batch, 3);
  EXPECT_EQ(cases[0].workload.context, 7);
  EXPECT_EQ(cases[0].workload.load.kind, LoadKind::zipf);
  EXPECT_EQ(cases[1].deployment.threads, 2);
  EXPECT_EQ(cases[2].architecture.name, "3");  // its line
  EXPECT_EQ(cases[2].workload.phase, Phase::prefill);
  EXPECT_EQ(cases[2].workload.prompt, 9);
  EXPECT_EQ(cases[2].stratum, "configurations");
}

TEST_F(ConfigurationFile, RefusesWhatIsWrongWithItsLine) {
  EXPECT_THAT(problem(line() + "{\"architecture\":"), HasSubstr(".jsonl:2"));
  EXPECT_THAT(problem(line(R"(,"batch":0)")), HasSubstr(".jsonl:1: /batch"));
  EXPECT_THAT(problem(line(R"(,"bacth":1)")), HasSubstr("\"bacth\" is not a known field"));
  EXPECT_THAT(problem(line(R"(,"phase":"mixed")")), HasSubstr("write decode or prefill"));
  EXPECT_THAT(problem(line(R"(,"prompt":9)")), HasSubstr("means nothing in decode"));
  EXPECT_THAT(problem(R"({"name":"a"})"), HasSubstr("architecture"));
  EXPECT_THAT(problem("\n \n"), HasSubstr("holds no configuration"));
}

TEST_F(ConfigurationFile, RefusesWhatTheRuntimeDoesNotExecute) {
  std::string text = line();
  text.replace(text.find("\"fp32\""), 6, "\"fp8\"");
  // The combination's format counts, not the model's: fp8 weights alone are no reason.
  EXPECT_EQ(problem(text), "");
  text = line();
  text.replace(text.find("\"top_k\":2"), 9, "\"top_k\":2,\"granularity\":\"sequence\"");
  EXPECT_THAT(problem(text), HasSubstr("not supported yet by the reference runtime"));
}

}  // namespace
}  // namespace moecast
