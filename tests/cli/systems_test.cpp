#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

/// A layer of GPT size over two nodes of A100, as the systems' papers have it.
Json layer_run_by(const std::vector<std::string>& more) {
  std::vector<std::string> arguments{"predict",   "--engine", "event",    "--hw",     "a100-sxm", "--hidden",
                                     "2048",      "--width",  "8192",     "--ep",     "16",       "--experts",
                                     "16",        "--top-k",  "2",        "--tokens", "32768",    "--no-gated",
                                     "--samples", "8",        "--format", "json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Finished finished = run_moecast(arguments);
  EXPECT_EQ(finished.code, 0) << finished.err;
  return finished.code == 0 ? Json::parse(finished.out) : Json();
}

double seconds(const std::string& system, const std::string& load) {
  return layer_run_by({"--system", system, "--load", load}).at("latency_s");
}

TEST(Systems, ShadowingTheHotExpertPaysOnSkewedLoads_C23_D9) {
  const double fast = seconds("fastmoe", "zipf:1.2");
  const double faster = seconds("fastermoe", "zipf:1.2");
  EXPECT_GT(fast / faster, 1.3) << "FasterMoE states 1.37 to 17.87 times";
  EXPECT_LT(fast / faster, 17.87);
  EXPECT_LT(seconds("fastmoe", "uniform"), seconds("fastermoe", "uniform")) << "nothing is hot: weights travel in vain";
  EXPECT_LT(seconds("smartmoe", "zipf:1.2"), faster) << "places that follow the load";
}

TEST(Systems, PipeliningHidesTheShorterPartAtMost_C23) {
  const std::vector<std::string> serial{"--system", "fastmoe", "--load", "uniform"};
  const Json one = layer_run_by(serial);
  double exchanged = 0;
  double computed = 0;
  for (const Json& op : one.at("operators")) {
    const std::string kind = op.at("kind");
    (kind.starts_with("all_to_all") ? exchanged : computed) += op.at("latency_s").get<double>();
  }
  ASSERT_GT(exchanged, 0);
  for (const char* degree : {"2", "4"}) {
    std::vector<std::string> pipelined = serial;
    pipelined.insert(pipelined.end(), {"--chunks", degree});
    const double time = layer_run_by(pipelined).at("latency_s");
    EXPECT_GE(time, std::max(exchanged, computed) * 0.999) << degree;
    EXPECT_LE(time, one.at("latency_s").get<double>() * 1.001) << degree;
  }
}

TEST(Systems, OnlyWholeBlocksOfRowsArePaddedWhereNothingIsDropped_C23) {
  // Uneven rows in blocks of 128 cost a little; slots for all of the fullest expert would cost several times as much.
  const double exact = seconds("fastmoe", "zipf:1");
  const double blocks = seconds("megablocks", "zipf:1");
  EXPECT_GE(blocks, exact);
  EXPECT_LT(blocks, 1.05 * exact);
  const Json padded = layer_run_by({"--system", "openmoe", "--load", "uniform"});
  const double ratio = padded.at("latency_s").get<double>() / seconds("megablocks", "uniform");
  EXPECT_GT(ratio, 1.38) << "MegaBlocks states 1.38 times over padding to twice the mean, experts alone";
  EXPECT_LT(ratio, 2.35);
  EXPECT_EQ(padded.at("inputs").at("system"), "openmoe");
}

TEST(Systems, CapacityTradesDroppedRowsForTheFullestRank_C23_D9) {
  const Json deepspeed = layer_run_by({"--system", "deepspeed-moe", "--load", "zipf:1"});
  EXPECT_GT(deepspeed.at("distribution").at("dropped_rows_ratio").get<double>(), 0.1);
  EXPECT_LT(deepspeed.at("latency_s").get<double>(), seconds("fastmoe", "zipf:1"));
}

TEST(Systems, AreListedAndTyposAreMended) {
  EXPECT_THAT(run_moecast({"list", "systems"}).out, HasSubstr("megablocks"));
  const Finished typo = run_moecast({"predict", "--engine", "event", "--model", "mixtral-8x7b", "--hw", "h100-sxm",
                                     "--ep", "8", "--system", "fastmo"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_THAT(typo.err, HasSubstr("did you mean \"fastmoe\"?"));
  const Finished closed =
      run_moecast({"predict", "--model", "mixtral-8x7b", "--hw", "h100-sxm", "--system", "fastmoe"});
  EXPECT_EQ(closed.code, 2);
  EXPECT_THAT(closed.err, HasSubstr("--engine event"));
  const Finished cpu = run_moecast(
      {"predict", "--engine", "event", "--model", "mixtral-8x7b", "--hw", "amd-epyc-2cpu", "--system", "fastmoe"});
  EXPECT_EQ(cpu.code, 2);
  EXPECT_THAT(cpu.err, HasSubstr("--system: means nothing on a CPU"));
}

}  // namespace
}  // namespace moecast::test
