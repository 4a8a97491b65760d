// `moecast exchange`, as people run it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

const std::vector<std::string> kExchange{"exchange", "--cluster", "h100-hgx-rail", "--ranks", "16", "--bytes", "16MB"};

TEST(ExchangeCommand, ShowsEveryAlgorithmAndItsClosedForm) {
  const Finished finished = run_moecast(with(kExchange, {"--format", "json", "--round-start", "5us"}));
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json ways = Json::parse(finished.out);
  ASSERT_EQ(ways.size(), 5U);
  for (const Json& way : ways) {
    EXPECT_NEAR(way.at("latency_s").get<double>() / way.at("closed_form_s").get<double>(), 1, 1e-3) << way;
  }
  const auto bytes = [&](std::size_t i) { return ways[i].at("between_nodes_bytes").get<double>(); };
  EXPECT_EQ(ways[3].at("exchange"), "hierarchical");
  EXPECT_NEAR(bytes(3) / bytes(0), 1, 1e-12) << "two levels carry what one does";
  EXPECT_EQ(ways[3].at("rounds"), 2);
  EXPECT_EQ(ways[1].at("rounds"), 15);
}

TEST(ExchangeCommand, OthersTrafficASlowLinkAndCollectives) {
  const auto latency = [](const std::vector<std::string>& more) {
    const Finished finished = run_moecast(with(kExchange, with(more, {"--round-start", "0s", "--format", "json"})));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out).at("latency_s").get<double>();
  };
  const double usual = latency({"--exchange", "direct"});
  EXPECT_NEAR(latency({"--exchange", "direct", "--slow-link", "nic 3 out:0.5"}) / usual, 2, 1e-6);
  for (const char* flows : {"port", "exact"}) {
    const double own = latency({"--exchange", "direct", "--flows", flows});
    EXPECT_NEAR(own / usual, 1, 1e-6);
    EXPECT_NEAR(latency({"--exchange", "direct", "--flows", flows, "--background", "0.1"}) * 0.9 / own, 1, 1e-4);
    EXPECT_NEAR(latency({"--exchange", "direct", "--flows", flows, "--background", "0.5"}) * 0.5 / own, 1, 1e-4);
    EXPECT_NEAR(latency({"--exchange", "direct", "--flows", flows, "--background", "0.9"}) * 0.1 / own, 1, 1e-4);
  }
  EXPECT_NEAR(latency({"--operation", "all-reduce"}) / latency({"--operation", "all-gather"}), 2, 1e-6);
  // To the server, eight workers of the other node share one NIC of 50 GB/s; back, its port of 450 GB/s carries what
  // all seven of its node get and what goes out by the NICs of their rails.
  const double expected = 8 * 16e6 / 50e9 + 14 * 16e6 / 450e9;
  EXPECT_NEAR(latency({"--operation", "parameter-server"}) / expected, 1, 1e-6);
}

TEST(ExchangeCommand, TheBusiestLinkIsTheOneThatTakesLongest) {
  const auto busiest = [](const std::vector<std::string>& more) {
    const Finished finished = run_moecast(with(kExchange, with(more, {"--exchange", "direct", "--format", "json"})));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out).at("busiest_link").get<std::string>();
  };
  EXPECT_THAT(busiest({}), HasSubstr("nic")) << "ports carry more, and are nine times as fast";
  EXPECT_EQ(busiest({"--slow-link", "nic 3 out:1e-6"}), "nic 3 out");
}

TEST(ExchangeCommand, SaysWhenRoundsStartAndWhatALibraryTakesAndWhoSaysSo) {
  const auto answer = [](const std::vector<std::string>& more, const char* bytes = "16MB") {
    const Finished finished = run_moecast(with({"exchange", "--cluster", "h100-hgx-rail", "--ranks", "16", "--bytes",
                                                bytes, "--exchange", "direct", "--format", "json"},
                                               more));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  const Json usual = answer({});
  EXPECT_EQ(usual.at("starts_origin"), "assumed");
  EXPECT_EQ(usual.at("starts_s"), 5e-6);
  const Json given = answer({"--round-start", "20us"});
  EXPECT_EQ(given.at("starts_origin"), "given");
  EXPECT_NEAR(given.at("latency_s").get<double>() - usual.at("latency_s").get<double>(), 15e-6, 1e-9);
  const Json library = usual.at("library");
  EXPECT_THAT(library.at("kernel").get<std::string>(), HasSubstr("alltoall"));
  EXPECT_GT(library.at("start_s"), 0);
  EXPECT_GT(library.at("latency_s"), library.at("start_s"));
  EXPECT_GT(library.at("efficiency_ratio"), answer({}, "64KB").at("library").at("efficiency_ratio"))
      << "large messages use the links better";
}

TEST(ExchangeCommand, AClustersOwnLatencyIsWaitedFor) {
  const std::string path = fresh_folder("latency") + "/mine.json";
  std::ofstream(path) << R"({"schema_version":1,"name":"mine","devices_per_node":2,"most_nodes":2,
    "scale_up":{"kind":"switch","bandwidth":null},
    "scale_out":{"kind":"switch","bandwidth":null,
                 "latency":{"value":1e-3,"unit":"s","origin":"measured","source":"ping"}}})";
  const auto asked = [&](const char* ranks) {
    return run_moecast({"exchange", "--cluster", path, "--ranks", ranks, "--bytes", "1MB", "--exchange", "direct",
                        "--format", "json"});
  };
  const Json across = Json::parse(asked("4").out);
  EXPECT_GT(across.at("latency_s"), 1e-3);
  EXPECT_EQ(across.at("starts_origin"), "measured");
  const Finished inside = asked("2");
  ASSERT_EQ(inside.code, 0) << inside.err;
  EXPECT_LT(Json::parse(inside.out).at("latency_s"), 1e-4);
  EXPECT_EQ(Json::parse(inside.out).at("bandwidth_origin"), "assumed");
  EXPECT_THAT(inside.err, HasSubstr("450 GB/s (NVLink 4) is assumed"));
  EXPECT_TRUE(Json::parse(inside.out).at("library").is_null()) << "no device, nothing measured";
}

TEST(ExchangeCommand, ADragonflysGroupsShareTheirLinksWithGroupsThatAreNotAsked) {
  const Finished finished = run_moecast({"exchange", "--cluster", "h100-dragonfly", "--ranks", "256", "--bytes", "64MB",
                                         "--exchange", "direct", "--round-start", "0s", "--format", "json"});
  ASSERT_EQ(finished.code, 0) << finished.err;
  // Half of what 128 ranks send crosses a bundle: a seventh of 128 NICs of 25 GB/s, tapered by 1.5.
  const double expected = 128 * 64e6 / 2 / (128 * 25e9 / 7 / 1.5);
  EXPECT_NEAR(Json::parse(finished.out).at("latency_s").get<double>() / expected, 1, 1e-6);
}

TEST(ExchangeCommand, GrowsWithRanksAndTaper_C12) {
  const auto latency = [](const std::string& cluster, int ranks) {
    const Finished finished =
        run_moecast({"exchange", "--cluster", cluster, "--ranks", std::to_string(ranks), "--bytes", "64MB",
                     "--exchange", "direct", "--round-start", "0s", "--format", "json"});
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out).at("latency_s").get<double>();
  };
  for (const char* cluster : {"h100-hgx-fat-tree", "h100-hgx-fat-tree-2to1", "h100-hgx-rail", "h100-dragonfly"}) {
    double before = 0;
    for (const int ranks : {8, 64, 512}) {
      const double now = latency(cluster, ranks);
      EXPECT_GT(now, before) << cluster << " " << ranks;
      before = now;
    }
  }
  // 15/16 of the bytes of 32 ranks leave their leaf over 32 NICs' worth of links, or half of them.
  const double up = 32 * 64e6 * 15 / 16 / (32 * 50e9);
  EXPECT_NEAR(latency("h100-hgx-fat-tree-2to1", 512) / up, 2, 1e-6) << "twice the term between leaves";
  EXPECT_GE(latency("h100-hgx-fat-tree", 512) / up, 1);
}

TEST(ExchangeCommand, RefusesWhatCannotBe) {
  const auto refusal = [](const std::vector<std::string>& arguments, int code, const char* what) {
    const Finished finished = run_moecast(arguments);
    EXPECT_EQ(finished.code, code) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(what));
    EXPECT_EQ(finished.out, "");
  };
  refusal(with(kExchange, {"--exchange", "rings"}), 2, "--exchange");
  refusal(with(kExchange, {"--operation", "all-reduse"}), 2, "did you mean \"all-reduce\"?");
  refusal({"exchange", "--cluster", "h100-hgx-rail", "--ranks", "1000000", "--bytes", "1MB"}, 2, "--ranks");
  refusal({"exchange", "--cluster", "h100-hgx-rail", "--ranks", "4"}, 2, "--bytes");
  const std::string path = fresh_folder("matrix") + "/m.json";
  const auto matrix = [&](const char* text, const char* what) {
    std::ofstream(path) << text;
    refusal({"exchange", "--cluster", "h100-hgx-rail", "--ranks", "2", "--matrix", path}, 3, what);
  };
  matrix("[[0, 1], [-1, 0]]", "/1/0");
  matrix("[[0, 1]]", "no matrix of 2 rows");
  matrix("[[0, 1], [1]]", "square");
  matrix("[[5, 0], [0, 5]]", "sums to nothing");
}

TEST(ExchangeCommand, TheClosedFormLeavesLinksToOthersToo) {
  const Finished done = run_moecast({"exchange", "--cluster", "h200-hgx-rail", "--ranks", "8", "--bytes", "64MB",
                                     "--operation", "all-gather", "--background", "0.5", "--format", "json"});
  ASSERT_EQ(done.code, 0) << done.err;
  const Json way = Json::parse(done.out);
  EXPECT_NEAR(way.at("closed_form_s").get<double>() / way.at("latency_s").get<double>(), 1, 0.01);
}

}  // namespace
}  // namespace moecast::test
