#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/cli/made_up_profile.h"
#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::size_t csv_cells(const std::string& line) {
  std::size_t cells = 1;
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') quoted = !quoted;
    if (c == ',' && !quoted) ++cells;
  }
  return cells;
}

Finished in_format(Words words, const std::string& format, const ProgramOptions& options) {
  words.insert(words.end(), {"--format", format});
  return run_moecast(words, options);
}

/// What a script needs: every format of a command can be read, and all hold as many records.
void expect_readable(const Words& words, std::size_t records) {
  SCOPED_TRACE(testing::PrintToString(words));
  const ProgramOptions narrow{.environment = {{"COLUMNS", "20"}}};
  const Json json = Json::parse(in_format(words, "json", narrow).out);
  EXPECT_EQ(json.is_array() ? json.size() : 1, records);
  const auto json_lines = lines_of(in_format(words, "jsonl", narrow).out);
  EXPECT_EQ(json_lines.size(), records);
  for (const std::string& line : json_lines) EXPECT_TRUE(Json::accept(line)) << line;
  const auto csv = lines_of(in_format(words, "csv", narrow).out);
  ASSERT_EQ(csv.size(), records + 1);
  for (const std::string& line : csv) EXPECT_EQ(csv_cells(line), csv_cells(csv.front())) << line;
  std::set<std::ptrdiff_t> bars;
  for (const std::string& line : lines_of(in_format(words, "md", narrow).out)) {
    if (line.starts_with('|')) bars.insert(std::count(line.begin(), line.end(), '|'));
  }
  EXPECT_LE(bars.size(), 3U);  // explain prints three tables
}

TEST(Formats, OfEveryAnswerCanBeRead) {
  const std::string profile = made_up_profile("formats");
  const Words layer{"--hw", profile, "--hidden", "128", "--width", "256", "--experts", "8", "--top-k", "2", "--tokens"};
  const auto with = [&](const char* command, const char* tokens) {
    Words words{command};
    words.insert(words.end(), layer.begin(), layer.end());
    words.emplace_back(tokens);
    return words;
  };
  expect_readable(with("predict", "64"), 1);
  expect_readable(with("predict", "1-64*2"), 7);
  expect_readable(with("explain", "64"), 1);
  expect_readable({"calibrate", profile}, 1);
  expect_readable({"predict", "--hw", profile, "--model", "mixtral-8x7b", "--dtype", "fp32"}, 1);  // does not fit
}

TEST(Formats, SpacesAreListedWithWhatIsSearched) {
  const Json spaces = Json::parse(in_format({"list", "spaces"}, "json", {}).out);
  const auto grid = std::ranges::find_if(spaces, [](const Json& space) { return space.at("name") == "automoe-180"; });
  ASSERT_NE(grid, spaces.end());
  EXPECT_EQ(grid->at("family"), "encoder-decoder");
  EXPECT_EQ(grid->at("searched_fields").size(), 4);
  EXPECT_EQ(grid->at("objectives"), Json::parse(R"(["latency","flops"])"));
}

TEST(Formats, OfAnEmptyListHoldNoRecord) {
  const ProgramOptions none{.environment = {{"MOECAST_PROFILES", fresh_folder("formats-none")},
                                            {"MOECAST_DATA", fresh_folder("formats-data/models/zoo") + "/../.."}}};
  EXPECT_EQ(in_format({"list", "hw"}, "csv", none).out, "");
  EXPECT_EQ(in_format({"list", "hw"}, "jsonl", none).out, "");
  EXPECT_EQ(Json::parse(in_format({"list", "hw"}, "json", none).out), Json::array());
}

}  // namespace
}  // namespace moecast::test
