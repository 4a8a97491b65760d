// Cluster files that describe no cluster, and ranks that a cluster lacks, through the program.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;

std::string rate(double value, const char* unit = "B/s") {
  return fmt::format(R"({{"value":{},"unit":"{}","origin":"datasheet","source":"x"}})", value, unit);
}

class BadCluster : public testing::Test {
 protected:
  static std::string text(int devices, int nodes, const std::string& up, const std::string& out) {
    return fmt::format(
        R"({{"schema_version":1,"name":"mine","devices_per_node":{},"most_nodes":{},"scale_up":{},"scale_out":{}}})",
        devices, nodes, up, out);
  }
  static std::string fabric(const std::string& kind, const std::string& bandwidth, const std::string& more = "") {
    return fmt::format(R"({{"kind":"{}","bandwidth":{}{}}})", kind, bandwidth, more);
  }

  [[nodiscard]] Finished exchange(const std::string& file, const char* ranks = "4") const {
    const std::string path = folder_ + "/mine.json";
    std::ofstream(path) << file;
    return run_moecast({"exchange", "--cluster", path, "--ranks", ranks, "--bytes", "1MB"});
  }
  void refused(const std::string& file, const std::vector<std::string>& said) const {
    const Finished finished = exchange(file);
    EXPECT_EQ(finished.code, 3) << finished.err;
    EXPECT_EQ(finished.out, "");
    EXPECT_THAT(finished.err, HasSubstr("mine.json")) << "where";
    for (const std::string& part : said) EXPECT_THAT(finished.err, HasSubstr(part));
  }

  const std::string folder_ = fresh_folder("clusters");
  const std::string up_ = fabric("switch", rate(400e9));
  const std::string none_ = R"({"kind":"none"})";
};

TEST_F(BadCluster, TheGoodOneIsAnswered) { EXPECT_EQ(exchange(text(4, 2, up_, fabric("switch", rate(50e9)))).code, 0); }

TEST_F(BadCluster, ThatIsNoJsonSaysLineAndColumn) { refused("{\"schema_version\":1,", {"line 1"}); }

TEST_F(BadCluster, ALinkOfNothingOrInAnotherUnitNamesItsPointer) {
  for (const double nothing : {0.0, -5e9}) refused(text(4, 1, fabric("switch", rate(nothing)), none_), {"/scale_up"});
  refused(text(4, 1, fabric("switch", rate(400, "Gbit/s")), none_), {"/scale_up/bandwidth/unit", "Gbit/s"});
  refused(text(1, 4, none_, fabric("switch", rate(0))), {"/scale_out/bandwidth"});
}

TEST_F(BadCluster, RanksThatNothingReachesAreRefused) {
  refused(text(4, 1, none_, none_), {"/scale_up"});
  refused(text(4, 2, up_, none_), {"/scale_out"});
}

TEST_F(BadCluster, FabricsThatDoNotFitSayWhatDoesNot) {
  refused(text(1, 8, none_, fabric("torus", rate(50e9), R"(,"dimensions":[2,3])")), {"6 nodes"});
  refused(text(4, 2, up_, fabric("fat_tree", rate(50e9), R"(,"oversubscription":0.5)")), {"oversubscription"});
  refused(text(4, 2, up_, fabric("switch", rate(50e9), R"(,"nics_per_node":3)")), {"NICs"});
  refused(text(4, 2, fabric("pcie_tree", rate(50e9), R"(,"devices_per_switch":3)"), fabric("switch", rate(50e9))),
          {"/scale_up", "3 devices a switch"});
  refused(text(4, 2, fabric("torus", rate(50e9)), fabric("switch", rate(50e9))), {"/scale_up/kind"});
  refused(text(4, 2, up_, fabric("swich", rate(50e9))), {"/scale_out/kind", "swich"});
}

TEST_F(BadCluster, RanksThatItLacksAreRefusedByEveryCommand) {
  const Finished wires = exchange(text(4, 2, up_, fabric("switch", rate(50e9))), "9");
  EXPECT_EQ(wires.code, 2);
  EXPECT_THAT(wires.err, HasSubstr("--ranks"));
  for (const char* command : {"predict", "trace"}) {
    std::vector<std::string> words{
        command,    "--hidden", "1024", "--width",  "512",  "--experts", "16",        "--top-k",          "2",
        "--tokens", "256",      "--hw", "h100-sxm", "--ep", "16",        "--cluster", "ethernet-switch-8"};
    if (words.front() == "predict") words.insert(words.end(), {"--engine", "event"});
    if (words.front() == "trace") words.insert(words.end(), {"-o", folder_ + "/t.json"});
    const Finished finished = run_moecast(words);
    EXPECT_EQ(finished.code, 2);
    EXPECT_THAT(finished.err, HasSubstr("--cluster"));
    EXPECT_THAT(finished.err, HasSubstr("has 8 devices, 16 ranks are asked for"));
    EXPECT_EQ(finished.out, "");
  }
}

}  // namespace
}  // namespace moecast::test
