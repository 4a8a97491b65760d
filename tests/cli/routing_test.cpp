// `moecast routing` and recorded routings, as people run them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

const std::vector<std::string> kLayer{"routing", "--tokens", "4096", "--load", "zipf:1"};
const std::vector<std::string> kRouting = with(kLayer, {"--experts", "64", "--top-k", "4", "--ranks", "8"});

Json answer(const std::vector<std::string>& more, const std::vector<std::string>& base = kRouting) {
  const Finished finished = run_moecast(with(base, with(more, {"--format", "json"})));
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

double sum_of(const Json& numbers) {
  double sum = 0;
  for (const Json& number : numbers) sum += number.is_array() ? sum_of(number) : number.get<double>();
  return sum;
}

TEST(RoutingCommand, ConservesRowsAndCountsBytes) {
  const Json a = answer({"--hidden", "4096", "--dispatch-dtype", "fp8_block", "--deduplicate", "expert"});
  EXPECT_TRUE(a.at("samples").is_null()) << "closed form";
  EXPECT_NEAR(sum_of(a.at("experts").at("rows")), 4096 * 4, 1e-6);
  EXPECT_NEAR(sum_of(a.at("ranks").at("rows")), 4096 * 4, 1e-6);
  EXPECT_NEAR(sum_of(a.at("dispatch_tokens")), 4096 * 4, 1e-6) << "a copy a selected expert";
  // A row of 4096 fp8 elements and a scale of four bytes per 128; bf16 on the way back.
  EXPECT_NEAR(sum_of(a.at("dispatch_bytes")), 4096.0 * 4 * (4096 + 32 * 4), 1);
  EXPECT_NEAR(sum_of(a.at("combine_bytes")), 4096.0 * 4 * 8192, 1);
  EXPECT_NEAR(a.at("dispatch_tokens")[1][2].get<double>() * 8192, a.at("combine_bytes")[2][1].get<double>(), 1e-6);
  EXPECT_TRUE(a.at("wasted_flops").is_null()) << "unknown without --width";
}

TEST(RoutingCommand, SamplesHaveTheExpectationAsTheirMean_B5) {
  const Json expected = answer({});
  const Json sampled = answer({"--samples", "200"});
  for (std::size_t e = 0; e < 64; ++e) {
    const double mean = expected.at("experts").at("rows")[e];
    // A percent, and four standard deviations of counting.
    EXPECT_NEAR(sampled.at("experts").at("rows")[e].get<double>() / mean, 1, 0.01 + 4 / std::sqrt(200 * mean)) << e;
  }
  EXPECT_EQ(answer({"--samples", "3"}), answer({"--samples", "3"}));
  EXPECT_NE(answer({"--samples", "3"}), answer({"--samples", "3", "--seed", "2"}));
}

TEST(RoutingCommand, ACopyANodeTravelsLessThanACopyARankThanACopyAnExpert) {
  const auto between = [](const char* by) {
    const Json a = answer({"--experts", "64", "--top-k", "4", "--ranks", "16", "--deduplicate", by}, kLayer);
    double sum = 0;
    for (std::size_t from = 0; from < 16; ++from) {
      for (std::size_t to = 0; to < 16; ++to) {
        if (from / 8 != to / 8) sum += a.at("dispatch_tokens")[from][to].get<double>();
      }
    }
    return sum;
  };
  EXPECT_LT(between("node"), between("rank"));
  EXPECT_LT(between("rank"), between("expert"));
}

TEST(RoutingCommand, CapacityDropsMovesQueuesAndPads) {
  const auto limited = [](const std::vector<std::string>& more) {
    return answer(with({"--capacity-factor", "1.25", "--samples", "20", "--hidden", "1024", "--width", "4096"}, more));
  };
  const Json drop = limited({});
  EXPECT_EQ(drop.at("slots_per_expert"), 320);
  EXPECT_GT(drop.at("dropped_rows"), 1000);
  EXPECT_NEAR(drop.at("kept_rows").get<double>() + drop.at("dropped_rows").get<double>(), 16384, 1e-6);
  EXPECT_EQ(drop.at("wasted_flops"), 0);
  EXPECT_GT(limited({"--overflow", "next-best"}).at("moved_rows"), 1000);
  EXPECT_GT(limited({"--overflow", "queue"}).at("queued_rows"), 1000);
  const Json padded = limited({"--pad"});
  EXPECT_NEAR(padded.at("padded_rows").get<double>(), 64 * 320 - padded.at("kept_rows").get<double>(), 1e-6);
  EXPECT_NEAR(padded.at("wasted_flops").get<double>(), padded.at("padded_rows").get<double>() * 2 * 3 * 1024 * 4096,
              1e3);
  EXPECT_EQ(limited({"--capacity-of", "tokens"}).at("slots_per_expert"), 80);
  EXPECT_EQ(answer({"--capacity-factor", "1.001", "--rounding", "floor", "--samples", "1"}).at("slots_per_expert"),
            256);
  EXPECT_EQ(answer({"--capacity-factor", "1.001", "--samples", "1"}).at("slots_per_expert"), 257);
}

TEST(RoutingCommand, ADynamicKIsReported_C18) {
  const Json dynamic = answer({"--top-k-distribution", "0.25,0.25,0.5", "--samples", "20"});
  EXPECT_NEAR(dynamic.at("experts_per_token").get<double>(), 1.25, 0.01);
  EXPECT_EQ(answer({"--top-k-distribution", "0,0,0,0,1", "--samples", "3"}).at("experts_per_token"), 4.0);
  const Json blocks = answer({"--row-block", "128", "--samples", "5"});
  EXPECT_GT(blocks.at("padded_rows"), 0);
  EXPECT_LE(blocks.at("padded_rows"), 64 * 127);
}

TEST(RoutingCommand, TheBalancerPlacesReplicasAndSaysWhatTheyCost) {
  const Json plain = answer({});
  const Json balanced = answer({"--placement", "balanced", "--hidden", "1024", "--width", "1024", "--link", "50GB/s"});
  EXPECT_LT(balanced.at("ranks").at("max_over_mean_ratio"), plain.at("ranks").at("max_over_mean_ratio"));
  EXPECT_TRUE(plain.at("move").is_null());
  const double copies = balanced.at("move").at("copies");
  EXPECT_GT(copies, 0);
  EXPECT_NEAR(balanced.at("move").at("bytes").get<double>(), copies * 3 * 1024 * 1024 * 2, 1);
  EXPECT_GE(balanced.at("move").at("latency_s").get<double>(), copies / 8 * 3 * 1024 * 1024 * 2 / 50e9);
  const Json mapped =
      answer({"--experts", "4", "--top-k", "1", "--ranks", "2", "--placement", "map:0,1,0+1,1"}, kLayer);
  EXPECT_EQ(mapped.at("placement"), Json::parse("[[0],[1],[0,1],[1]]"));
  const Json servers = answer({"--placement", "servers:1"});
  EXPECT_NEAR(servers.at("ranks").at("max_over_mean_ratio").get<double>(), 8, 1e-9) << "one rank computes all";
}

TEST(RoutingCommand, SaysWhatItsMetricsAreOf) {
  const std::vector<std::string> few{"routing", "--experts", "256", "--top-k", "8", "--tokens", "64"};
  const Json expected = answer({}, few);
  EXPECT_EQ(expected.at("metrics_of"), "expected rows");
  EXPECT_NEAR(expected.at("experts").at("max_over_mean_ratio").get<double>(), 1, 1e-9);
  EXPECT_GT(expected.at("experts").at("sampled").at("max_over_mean_ratio"), 3);
  EXPECT_GT(expected.at("experts").at("sampled").at("gini"), 0.3);
  const Json sampled = answer({"--samples", "50"}, few);
  EXPECT_EQ(sampled.at("metrics_of"), "samples");
  EXPECT_TRUE(sampled.at("experts").at("sampled").is_null());
  EXPECT_NEAR(sampled.at("experts").at("max_over_mean_ratio").get<double>(),
              expected.at("experts").at("sampled").at("max_over_mean_ratio").get<double>(), 0.2);
  const Finished table = run_moecast(few);
  EXPECT_THAT(table.out, HasSubstr("max / mean of expected rows"));
  EXPECT_THAT(table.out, HasSubstr("max / mean, mean of 100 routings"));
}

TEST(RoutingCommand, LoadsOfAnySkewAreAnswered) {
  for (const char* load : {"zipf:50", "log-normal:20", "histogram:1,1e-12,1e-20,1e-30,1e-40,1e-50,1e-60,1e-70"}) {
    for (const char* samples : {"0", "20"}) {
      const Json a = answer(
          {"--experts", "8", "--top-k", "2", "--tokens", "64", "--ranks", "4", "--load", load, "--samples", samples},
          {"routing"});
      EXPECT_NEAR(sum_of(a.at("experts").at("rows")), 128, 1e-6) << load;
      EXPECT_NEAR(a.at("experts").at("max_over_mean_ratio").get<double>(), 4, 1e-3) << load;
    }
  }
}

TEST(RoutingCommand, StepsOfFeedbackAreATimeline_C9) {
  const Json steps = answer({"--steps", "300", "--bias-step", "0.02", "--samples", "0"}).at("steps");
  ASSERT_EQ(steps.size(), 300U);
  EXPECT_GT(steps.front().at("expert_max_over_mean_ratio"), 5);
  EXPECT_LT(steps.back().at("expert_max_over_mean_ratio"), 1.1);
  const Json schedule =
      answer({"--steps", "4", "--capacity-schedule", "2x2,1.25", "--overflow", "queue", "--samples", "1"}).at("steps");
  EXPECT_EQ(schedule[1].at("capacity_factor"), 2.0);
  EXPECT_EQ(schedule[2].at("capacity_factor"), 1.25);
  EXPECT_GT(schedule[3].at("waiting_rows"), schedule[1].at("waiting_rows"));
  const Finished csv = run_moecast(with(kRouting, {"--steps", "3", "--rebalance", "1", "--format", "csv"}));
  EXPECT_THAT(csv.out, HasSubstr("step,capacity_factor,slots_per_expert,asked_rows"));
  EXPECT_EQ(std::count(csv.out.begin(), csv.out.end(), '\n'), 4);
}

TEST(RoutingCommand, WritesTheFormatsThatAreAskedFor) {
  const Finished table = run_moecast(kRouting);
  EXPECT_THAT(table.out, HasSubstr("max / mean"));
  const Finished matrix = run_moecast(with(kRouting, {"--show", "matrix", "--format", "csv"}));
  EXPECT_THAT(matrix.out, HasSubstr("sender,rank_0_tokens"));
  EXPECT_EQ(std::count(matrix.out.begin(), matrix.out.end(), '\n'), 9);
  const Finished ranks = run_moecast(with(kRouting, {"--show", "ranks", "--format", "md"}));
  EXPECT_THAT(ranks.out, HasSubstr("| rank |"));
  const Finished lines = run_moecast(with(kRouting, {"--show", "experts", "--format", "jsonl"}));
  EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), 64);
}

TEST(RoutingCommand, RefusesWhatContradictsItself) {
  const auto refusal = [](const std::vector<std::string>& more, const char* what, int code = 2) {
    const Finished finished = run_moecast(with(kRouting, more));
    EXPECT_EQ(finished.code, code) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(what));
    EXPECT_EQ(finished.out, "");
  };
  refusal({"--policy", "token-choise"}, "did you mean \"token-choice\"?");
  refusal({"--samples", "0", "--capacity-factor", "1"}, "closed form");
  refusal({"--pad"}, "--capacity-factor");
  refusal({"--bias-step", "0.1"}, "--steps");
  refusal({"--width", "64"}, "--hidden");
  refusal({"--show", "expert"}, "did you mean \"experts\"?");
  refusal({"--show", "steps"}, "--steps");
  refusal({"--slots", "3"}, "--placement balanced");
  refusal({"--placement", "balanced", "--slots", "2"}, "slots");
  refusal({"--placement", "map:0,9"}, "--placement");
  refusal({"--groups", "3", "--groups-kept", "2"}, "");
  for (const char* policy : {"hash", "dense", "expert-choice"}) {
    refusal({"--policy", policy, "--noise", "gaussian:1"}, "noise changes nothing");
    refusal({"--policy", policy, "--top-k-distribution", "0.5,0.5"}, "number of experts varies only");
  }
  refusal({"--row-block", "128", "--steps", "3"}, "--row-block");
  const Finished missing =
      run_moecast({"routing", "--experts", "8", "--top-k", "1", "--tokens", "8", "--load", "trace:/no/such.csv"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_THAT(missing.err, HasSubstr("no such file"));
}

class RecordedRoutingCommand : public testing::Test {
 protected:
  /// Four steps of 256 tokens, two layers.
  std::string trace() const {
    const std::string path = folder_ + "/trace.csv.gz";
    const Finished written =
        run_moecast({"routing", "--experts", "16", "--top-k", "2", "--tokens", "256", "--load", "zipf:1", "--steps",
                     "4", "--layers", "2", "--correlation", "0.5", "--write-trace", path});
    EXPECT_EQ(written.code, 0) << written.err;
    return path;
  }
  static std::vector<std::string> layer(const std::string& load) {
    return {"predict",  "--hw",      "intel-xeon-processor-2cpu",
            "--hidden", "1024",      "--width",
            "2048",     "--experts", "16",
            "--top-k",  "2",         "--tokens",
            "256",      "--load",    load,
            "--format", "json"};
  }
  const std::string folder_ = fresh_folder("recorded");
};

TEST_F(RecordedRoutingCommand, IsALoadOfBothEngines) {
  const std::string load = "trace:" + trace();
  const Finished closed = run_moecast(layer(load));
  ASSERT_EQ(closed.code, 0) << closed.err;
  const Finished like = run_moecast(layer("zipf:1"));
  const double latency = Json::parse(closed.out).at("latency_s");
  EXPECT_NEAR(latency / Json::parse(like.out).at("latency_s").get<double>(), 1, 0.05) << "the law that was drawn from";
  const Finished sampled = run_moecast(with(layer(load), {"--engine", "event"}));
  ASSERT_EQ(sampled.code, 0) << sampled.err;
  const Json a = Json::parse(sampled.out);
  EXPECT_EQ(a.at("distribution").at("samples"), 4) << "windows of the trace";
  const Finished drawn = run_moecast(with(layer("zipf:1"), {"--engine", "event"}));
  EXPECT_NEAR(a.at("latency_s").get<double>() / Json::parse(drawn.out).at("latency_s").get<double>(), 1, 0.03);
  EXPECT_EQ(a.at("inputs").at("load"), load);
}

TEST_F(RecordedRoutingCommand, KeepsTheNumbersOfTheExperts) {
  const std::string path = folder_ + "/numbers.csv";
  const auto write = [&](int layers) {
    std::ofstream file(path);
    file << "layer,token,expert_0\n";
    for (int layer = 0; layer < layers; ++layer) {
      const int hot = layer == 0 ? 12 : 3;  // half of the tokens, the others evenly over 0 and 1
      for (int t = 0; t < 1024; ++t) file << layer << ',' << t << ',' << (t % 2 == 0 ? hot : t / 2 % 2) << '\n';
    }
  };
  const std::vector<std::string> asked{"routing", "--experts", "16",     "--top-k",      "1", "--tokens", "1024",
                                       "--ranks", "4",         "--load", "trace:" + path};
  write(1);
  const Json one = answer({}, asked);
  EXPECT_NEAR(one.at("experts").at("rows")[12].get<double>(), 512, 5) << "never chosen ones count half a token";
  EXPECT_NEAR(one.at("experts").at("rows")[0].get<double>(), 256, 3);
  EXPECT_NEAR(one.at("ranks").at("rows")[3].get<double>(), 512, 5);
  write(2);
  const Json both = answer({}, asked);
  EXPECT_NEAR(both.at("experts").at("rows")[12].get<double>(), 256, 5);
  EXPECT_NEAR(both.at("experts").at("rows")[3].get<double>(), 256, 5);
  EXPECT_NEAR(answer({"--trace-layer", "1"}, asked).at("experts").at("rows")[3].get<double>(), 512, 5);
  const Finished said = run_moecast(asked);
  EXPECT_THAT(said.err, HasSubstr("mean over 2 layers"));
  EXPECT_THAT(said.err, HasSubstr("which ones a token chose together"));
  EXPECT_EQ(run_moecast(with(asked, {"--trace-layer", "2"})).code, 2);
  EXPECT_EQ(run_moecast(with(kRouting, {"--trace-layer", "0"})).code, 2);
}

TEST_F(RecordedRoutingCommand, IsReplayedStepByStepInATrace) {
  const std::string load = "trace:" + trace();
  const auto traced = [&](const char* sample) {
    return run_moecast({"trace",    "--hidden", "1024",     "--width",  "2048", "--experts", "16",
                        "--top-k",  "2",        "--tokens", "256",      "--hw", "h100-sxm",  "--ep",
                        "2",        "--load",   load,       "--sample", sample, "-o",        folder_ + "/t.json",
                        "--format", "json"});
  };
  const Finished first = traced("0");
  ASSERT_EQ(first.code, 0) << first.err;
  const Json step = Json::parse(first.out);
  EXPECT_THAT(step.at("routing").get<std::string>(), HasSubstr("recorded, step 0 of 4"));
  // What predict replays too, whose distribution is that of all four.
  const Finished all = run_moecast({"predict",   "--engine", "event",   "--hidden", "1024",     "--width",  "2048",
                                    "--experts", "16",       "--top-k", "2",        "--tokens", "256",      "--hw",
                                    "h100-sxm",  "--ep",     "2",       "--load",   load,       "--format", "json"});
  double sum = 0;
  for (const char* sample : {"0", "1", "2", "3"})
    sum += Json::parse(traced(sample).out).at("simulated_s").get<double>();
  EXPECT_NEAR(sum / 4 / Json::parse(all.out).at("latency_s").get<double>(), 1, 1e-3);
  const Finished beyond = traced("4");
  EXPECT_EQ(beyond.code, 2);
  EXPECT_THAT(beyond.err, HasSubstr("holds 4 steps of 256 tokens"));
}

TEST_F(RecordedRoutingCommand, NamesTheLineThatIsWrong) {
  const auto refusal = [&](const std::string& text, const char* what) {
    const std::string path = folder_ + "/bad.csv";
    std::ofstream(path) << text;
    const Finished finished = run_moecast(layer("trace:" + path));
    EXPECT_EQ(finished.code, 3) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(what));
    EXPECT_EQ(finished.out, "");
  };
  const std::string head = "layer,token,expert_0,expert_1\n";
  refusal(head + "0,0,1,2\n0,1,3\n", "line 3: has 3 cells");
  refusal(head + "0,0,1,2\n0,1,3,16\n", "line 3: expert 16; the model has 16");
  refusal("layer,token,expert_0\n0,0,1\n", "holds 1 experts a token, the model chooses 2");
  refusal(head + "0,0,1,2\n1,0,1,2\n2,0,1,2\n1,1,3,4\n", "line 5: layer 1 comes after layer 2");
}

TEST_F(RecordedRoutingCommand, TenGigabytesOfNothingAreRefusedInLittleMemory) {
  const std::string path = folder_ + "/huge.csv";
  std::ofstream(path) << "layer,token,expert_0,expert_1\n0,0,1,2\n";
  std::filesystem::resize_file(path, 10'000'000'000);  // a hole: nothing is written
  ProgramOptions small;
  small.memory_limit_bytes = std::size_t{2} << 30;
  const Finished finished = run_moecast(layer("trace:" + path), small);
  std::filesystem::remove(path);
  EXPECT_EQ(finished.code, 3) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("huge.csv"));
  EXPECT_EQ(finished.out, "");
}

}  // namespace
}  // namespace moecast::test
