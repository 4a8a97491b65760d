// Recorded routings: what is read, what is refused and where, how little memory it takes.
#include "models/routing/routing_trace.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

using testing::HasSubstr;

class RoutingTraceTest : public testing::Test {
 protected:
  RoutingTraceTest() { std::filesystem::create_directories(folder_); }
  ~RoutingTraceTest() override { std::filesystem::remove_all(folder_); }
  RoutingTraceTest(const RoutingTraceTest&) = delete;
  RoutingTraceTest& operator=(const RoutingTraceTest&) = delete;

  std::string file(const std::string& text, const std::string& name = "trace.csv") const {
    write_file_atomically(folder_ + "/" + name, text);
    return folder_ + "/" + name;
  }
  /// What is refused, "" where nothing is.
  std::string refusal(const std::string& text) const {
    try {
      static_cast<void>(read_routing_trace(file(text)));
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  const std::string folder_ = testing::TempDir() + "moecast_trace_" + std::to_string(getpid());
};

const char* const kTwoLayers =
    "layer,token,expert_0,expert_1\n"
    "0,0,3,1\n0,1,3,0\n1,0,2,1\n1,1,2,3\n"
    "0,2,3,2\n0,3,1,3\n1,2,2,0\n1,3,0,2\n";

TEST_F(RoutingTraceTest, CountsInOnePass) {
  for (const char* name : {"trace.csv", "trace.csv.gz"}) {
    const RoutingTrace trace = read_routing_trace(file(kTwoLayers, name));
    EXPECT_EQ(trace.top_k, 2);
    EXPECT_EQ(trace.layers, (std::vector<int>{0, 1}));
    EXPECT_EQ(trace.tokens, (std::vector<std::int64_t>{4, 4}));
    EXPECT_EQ(trace.rows[0], (std::vector<std::int64_t>{1, 2, 1, 4}));
    EXPECT_EQ(trace.rows[1], (std::vector<std::int64_t>{2, 1, 4, 1}));
    EXPECT_EQ(trace.highest_expert, 3);
    EXPECT_EQ(trace.highest_line, 2U);
  }
}

TEST_F(RoutingTraceTest, JsonLinesSayTheSame) {
  const RoutingTrace csv = read_routing_trace(file("layer,token,expert_0,expert_1\r\n3,7,5,1\r\n\r\n4,7,0,2\r\n"));
  const RoutingTrace json =
      read_routing_trace(file("{\"layer\": 3, \"token\": 7, \"experts\": [5, 1]}\n"
                              "{\"layer\": 4, \"token\": 7, \"experts\": [0, 2]}\n",
                              "trace.jsonl"));
  EXPECT_EQ(csv.rows, json.rows);
  EXPECT_EQ(csv.layers, json.layers);
  EXPECT_EQ(csv.layers, (std::vector<int>{3, 4}));
}

TEST_F(RoutingTraceTest, RefusesALineAndNamesIt) {
  const std::string head = "layer,token,expert_0,expert_1\n0,0,1,2\n";
  const auto after = [&](const std::string& line) { return refusal(head + line); };
  EXPECT_EQ(after("0,1,3,4\n"), "");
  EXPECT_THAT(after("0,1,3\n"), HasSubstr("line 3: has 3 cells, the header 4"));
  EXPECT_THAT(after("0,1,3,"), HasSubstr("line 3: expert: \"\" is no whole number"));
  EXPECT_THAT(after("0,1,3,-4\n"), HasSubstr("line 3"));
  EXPECT_THAT(after("0,1,3,65536\n"), HasSubstr("from 0 to 65535"));
  EXPECT_THAT(after("0,1,3,99999999999999999999\n"), HasSubstr("line 3"));
  EXPECT_THAT(after("0,1,3,3\n"), HasSubstr("line 3: expert 3 twice"));
  EXPECT_THAT(after("0,0,3,4\n"), HasSubstr("line 3: token 0 of layer 0 comes after token 0"));
  EXPECT_THAT(after("1,0,3,4\n2,0,3,4\n1,1,3,4\n"), HasSubstr("line 5: layer 1 comes after layer 2"));
  EXPECT_THAT(after("2,0,3,4\n0,1,3,4\n1,1,3,4\n"), HasSubstr("line 5: layer 1 was not there when layers began"));
  EXPECT_THAT(after("2,0,3,4\n0,1,3,4\n5,1,3,4\n"), HasSubstr("line 5: layer 5 was not there when layers began"));
  EXPECT_THAT(refusal("token,layer,expert\n"), HasSubstr("is no header of a recorded routing"));
  EXPECT_THAT(refusal(""), HasSubstr("holds no token"));
  EXPECT_THAT(refusal(head.substr(0, head.find('\n') + 1)), HasSubstr("holds no token"));
  const std::string json = "{\"layer\":0,\"token\":0,\"experts\":[1,2]}\n";
  EXPECT_THAT(refusal(json + "{\"layer\":0,\"token\":1,\"experts\":[1]}\n"),
              HasSubstr("line 2: a token with 1 experts, the first one has 2"));
  EXPECT_THAT(refusal(json + "{\"layer\":0,\"token\":1,\"exp"), HasSubstr("line 2"));
  EXPECT_THAT(refusal(json + "{\"layer\":0,\"token\":1,\"expert\":[1,2]}\n"),
              HasSubstr("line 2: \"expert\" is not a known field"));
  EXPECT_THAT(refusal("layer,token,expert_0\n0,0,65535\n" +
                      [] {
                        std::string text;
                        for (int layer = 1; layer < 300; ++layer) text += fmt::format("{},0,65535\n", layer);
                        return text;
                      }()),
              HasSubstr("line 258: 257 layers of 65536 experts"))
      << "counters that no model needs";
}

TEST_F(RoutingTraceTest, AFileOfTenGigabytesOfNothingIsRefusedUnread) {
  const std::string path = folder_ + "/lie.csv";
  std::ofstream(path).close();
  std::filesystem::resize_file(path, std::uintmax_t{10'000'000'000});  // sparse: takes no disk
  EXPECT_THROW(static_cast<void>(read_routing_trace(path)), InputError);
}

TEST_F(RoutingTraceTest, ALongFileTakesTheMemoryOfAWindow) {
  const std::string path = folder_ + "/long.csv";
  constexpr std::int64_t kTokens = 2'000'000;
  {
    std::ofstream out(path);
    out << "layer,token,expert_0,expert_1\n";
    for (std::int64_t t = 0; t < kTokens; ++t) out << "0," << t << ',' << t % 61 << ',' << 64 + t % 59 << '\n';
  }
  ASSERT_GT(std::filesystem::file_size(path), 25U << 20);
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  const RoutingTrace trace = read_routing_trace(path);
  std::int64_t windows = 0;
  read_trace_windows(path, 128, 1000, 1 << 30, [&](std::size_t, std::int64_t, Assignment& window) {
    windows += window.tokens() == 1000 ? 1 : 0;
    return true;
  });
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
  EXPECT_EQ(trace.tokens.front(), kTokens);
  EXPECT_EQ(windows, kTokens / 1000);
  // Buffers of zlib and of a window, a tenth of the file at most.
  EXPECT_LT((after.ru_maxrss - before.ru_maxrss) * 1024, 3 << 20);
}

TEST_F(RoutingTraceTest, WindowsHoldTheStepsTokensWhateverTheOrder) {
  // Steps of two tokens; the same lines layer after layer.
  const std::string by_layer =
      "layer,token,expert_0,expert_1\n0,0,3,1\n0,1,3,0\n0,2,3,2\n0,3,1,3\n1,0,2,1\n1,1,2,3\n1,2,2,0\n1,3,0,2\n";
  using Windows = std::map<std::pair<std::size_t, std::int64_t>, std::vector<std::int32_t>>;
  const auto read = [](const std::string& path, std::int64_t most) {
    Windows windows;
    read_trace_windows(path, 4, 2, most, [&](std::size_t layer, std::int64_t window, Assignment& a) {
      windows[{layer, window}] = a.expert;
      return true;
    });
    return windows;
  };
  const Windows steps = read(file(kTwoLayers), 10);
  EXPECT_EQ(steps.size(), 4U);
  EXPECT_EQ(steps.at({1, 1}), (std::vector<std::int32_t>{2, 0, 0, 2}));
  EXPECT_EQ(steps, read(file(by_layer, "by_layer.csv"), 10));
  EXPECT_EQ(read(file(kTwoLayers), 1).size(), 2U);
  const RoutingTrace trace = read_routing_trace(file(kTwoLayers));
  EXPECT_EQ(trace_windows(trace, 2), 2);
  EXPECT_EQ(trace_windows(trace, 3), 1);
  EXPECT_THROW(static_cast<void>(trace_windows(trace, 5)), InputError);
  EXPECT_THROW(
      read_trace_windows(file(kTwoLayers), 3, 2, 1, [](std::size_t, std::int64_t, Assignment&) { return true; }),
      InputError)
      << "expert 3 of three";
}

TEST(TracePopularity, IsWhatWasDrawn_D3) {
  // Draws by Zipf weights, recorded: the popularity that they give has the same inclusion probabilities.
  for (const int experts : {16, 128}) {
    RoutingPolicy policy;
    policy.top_k = 4;
    const std::vector<double> zipf = expert_popularity({LoadKind::zipf, 1.0, {}, 1}, experts);
    Random random(3);
    Assignment assignment;
    Router(policy, zipf).draw(200'000, random, assignment);
    RoutingTrace trace;
    trace.top_k = 4;
    RoutedToken token;
    for (std::size_t t = 0; t < assignment.tokens(); ++t) {
      token.experts.assign(assignment.of(t).begin(), assignment.of(t).end());
      trace.count(token, 0);
    }
    ExpertLoad load;
    load.kind = LoadKind::trace;
    load.trace = std::make_shared<const RoutingTrace>(trace);
    const std::vector<double> drawn = inclusion_probability(expert_popularity(load, experts), 4);
    const std::vector<double> asked = inclusion_probability(zipf, 4);
    // 200,000 tokens: a share of 1 % is known to 2 % (one standard deviation).
    for (std::size_t e = 0; e < drawn.size(); ++e) EXPECT_NEAR(drawn[e], asked[e], 0.003 + 0.03 * asked[e]) << e;
  }
}

TEST(TracePopularity, InvertsInclusion) {
  for (const int experts : {8, 64, 256}) {
    const std::vector<double> weights = expert_popularity({LoadKind::zipf, 1.2, {}, 1}, experts);
    const std::vector<double> inclusion = inclusion_probability(weights, 3);
    std::vector<double> back = popularity_of_inclusion(inclusion, 3);
    const double sum = std::accumulate(back.begin(), back.end(), 0.0);
    for (double& w : back) w /= sum;
    const std::vector<double> again = inclusion_probability(back, 3);
    for (std::size_t e = 0; e < again.size(); ++e) EXPECT_NEAR(again[e] / inclusion[e], 1, 2e-4) << experts;
  }
}

/// Expert 5 in layer 0, expert 2 in layer 1 of 1,000 tokens each; the others evenly.
RoutingTrace two_hot_experts() {
  RoutingTrace trace;
  trace.top_k = 2;
  RoutedToken token;
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const std::int32_t hot = layer == 0 ? 5 : 2;
    for (std::int32_t t = 0; t < 1000; ++t) {
      const std::int32_t other = t % 7;
      token.experts = {hot, other < hot ? other : other + 1};
      trace.count(token, layer);
    }
  }
  return trace;
}

TEST(RecordedPopularity, KeepsTheNumbersOfTheExperts) {
  const RoutingTrace trace = two_hot_experts();
  for (const std::size_t layer : {0U, 1U}) {
    const std::size_t hot = layer == 0 ? 5 : 2;
    const auto popularity = recorded_popularity(trace, 8, layer);
    EXPECT_EQ(std::ranges::max_element(popularity) - popularity.begin(), static_cast<std::ptrdiff_t>(hot));
    EXPECT_EQ(recorded_shares(trace, 8, layer)[hot], 1);
    EXPECT_NEAR(recorded_shares(trace, 8, layer)[0], 1.0 / 7, 1e-3);
  }
  // Their mean: both hot ones are chosen by 4 / 7 of the tokens, the others by a seventh.
  std::vector<double> mean = recorded_popularity(trace, 8, std::nullopt);
  const double sum = std::accumulate(mean.begin(), mean.end(), 0.0);
  for (double& weight : mean) weight /= sum;
  const auto inclusion = inclusion_probability(mean, 2);
  for (std::size_t e = 0; e < 8; ++e) EXPECT_NEAR(inclusion[e], e == 5 || e == 2 ? 4.0 / 7 : 1.0 / 7, 2e-3) << e;
}

TEST(RecordedPopularity, OneExpertMayBeChosenByAll) {
  const RoutingTrace trace = two_hot_experts();
  std::vector<double> weights = recorded_popularity(trace, 8, 0);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
  const auto inclusion = inclusion_probability(weights, 2);
  EXPECT_NEAR(inclusion[5], 1, 1e-3);
  for (const std::size_t e : {0, 1, 2, 3, 4, 6, 7}) EXPECT_NEAR(inclusion[e], 1.0 / 7, 1e-3) << e;
  ExpertLoad load;
  load.kind = LoadKind::trace;
  load.trace = std::make_shared<const RoutingTrace>(trace);
  EXPECT_NEAR(inclusion_probability(expert_popularity(load, 8), 2)[0], 1, 1e-3) << "a typical layer";
}

TEST(RecordedPopularity, ManyExpertsAreChosenAsOftenAsWasRecorded) {
  const std::vector<double> asked = inclusion_probability(expert_popularity({LoadKind::zipf, 1.0, {}, 1}, 128), 4);
  RoutingTrace trace;
  trace.top_k = 4;
  trace.tokens = {100'000};
  trace.rows.emplace_back();
  for (const double p : asked) trace.rows[0].push_back(std::llround(p * 100'000));
  std::vector<double> weights = recorded_popularity(trace, 128, 0);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
  const auto exact = inclusion_probability(weights, 4, Inclusion::exact);
  for (std::size_t e = 0; e < 128; ++e) EXPECT_NEAR(exact[e] / asked[e], 1, 1e-3) << e;
}

TEST(TracePopularity, NamesTheLineOfAnExpertThatTheModelLacks) {
  RoutingTrace trace;
  trace.path = "t.csv";
  trace.top_k = 1;
  trace.count({17, 0, 0, {9}}, 0);
  try {
    static_cast<void>(trace_popularity(trace, 8));
    FAIL();
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("t.csv: line 17: expert 9; the model has 8"));
  }
  EXPECT_EQ(trace_popularity(trace, 16).size(), 16U);
}

}  // namespace
}  // namespace moecast
