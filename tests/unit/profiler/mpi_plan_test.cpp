#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "models/core/error.h"
#include "profiler/mpi/plan.h"

namespace moecast {
namespace {

std::string matrix_plan(const std::string& matrix) {
  return R"({"ranks": 2, "repeats": 3, "points": [{"kind": "all_to_all_v", "matrix": )" + matrix + "}]}";
}

std::string refusal(const std::string& text) {
  try {
    parse_mpi_plan(text, "plan.json");
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(MpiPlan, SurvivesWritingAndReading) {
  MpiPlan plan;
  plan.ranks = 2;
  plan.repeats = 4;
  MpiPoint exchange;
  exchange.kind = MpiKind::all_to_all_v;
  exchange.matrix = ByteMatrix(2, {0, 5, 7, 0});
  MpiPoint experts;
  experts.kind = MpiKind::experts;
  experts.layer = {32, 64, 128, 8, 2, false, 0.5, 9, 2, 4};
  experts.rows = 12;
  experts.touched = 3;
  experts.at_once = 2;
  MpiPoint reduce;
  reduce.kind = MpiKind::all_reduce;
  reduce.bytes = 4096;
  plan.points = {exchange, experts, reduce};
  const std::string text = mpi_plan_text(plan);
  const MpiPlan read = parse_mpi_plan(text, "plan.json");
  EXPECT_EQ(mpi_plan_text(read), text);
  EXPECT_EQ(read.points[0].matrix->at(1, 0), 7);
  EXPECT_EQ(read.points[1].at_once, 2);
  EXPECT_FALSE(read.points[1].layer.gated);
  EXPECT_EQ(read.points[1].layer.tp, 2);
  EXPECT_EQ(read.points[1].layer.heads, 4);
}

TEST(MpiPlan, RefusesBrokenMatrices) {
  EXPECT_THAT(refusal(matrix_plan("[[0, 1], [-1, 0]]")), ::testing::HasSubstr("/points/0/matrix/1/0"));
  EXPECT_THAT(refusal(matrix_plan("[[0, 1]]")), ::testing::HasSubstr("no matrix of 2 rows"));
  EXPECT_THAT(refusal(matrix_plan("[[0, 1], [1]]")), ::testing::HasSubstr("no row of 2 numbers"));
  EXPECT_THAT(refusal(matrix_plan("[[5, 0], [0, 5]]")), ::testing::HasSubstr("sums to nothing"));
  EXPECT_THAT(refusal(matrix_plan("[[0, 1e300], [0, 0]]")), ::testing::HasSubstr("/points/0/matrix/0/1"));
  EXPECT_THAT(refusal(matrix_plan("7")), ::testing::HasSubstr("no matrix"));
}

TEST(MpiPlan, RefusesWhatRanksCannotDo) {
  EXPECT_NE(refusal("[]"), "accepted");
  EXPECT_NE(refusal(R"({"ranks": 0, "repeats": 1, "points": []})"), "accepted");
  EXPECT_NE(refusal(R"({"ranks": 2, "repeats": 1, "points": [{"kind": "gossip", "bytes": 1}]})"), "accepted");
  EXPECT_NE(refusal(R"({"ranks": 2, "repeats": 1, "points": [{"kind": "all_reduce", "bytes": 1, "at_once": 2}]})"),
            "accepted");
  const std::string layer =
      R"({"tokens": 4, "hidden": 8, "width": 8, "experts": 3, "top_k": 1, "gated": true, "zipf": 0, "seed": 1})";
  EXPECT_THAT(refusal(R"({"ranks": 2, "repeats": 1, "points": [{"kind": "moe_layer", "layer": )" + layer + "}]}"),
              ::testing::HasSubstr("do not divide"));
}

TEST(MpiResults, SurviveWritingAndReadingAndRefuseLies) {
  MpiResults results;
  results.library = "openmpi-4.1.4";
  results.points.push_back({{0.5, 0.25}, {{"dispatch", 0.125}}});
  const std::string text = mpi_results_text(results);
  EXPECT_EQ(mpi_results_text(parse_mpi_results(text, "r")), text);
  EXPECT_THROW(parse_mpi_results(R"({"library": "x", "points": [{"seconds": [-1], "phases": {}}]})", "r"), InputError);
}

TEST(MpiPlan, RefusesSharesThatDoNotDivide) {
  const auto layer = [](const std::string& more) {
    return refusal(R"({"ranks": 4, "repeats": 1, "points": [{"kind": "moe_layer", "layer": {"tokens": 4, "hidden": 8,)"
                   R"( "width": 8, "experts": 8, "top_k": 1, "gated": true, "zipf": 0, "seed": 1, )" +
                   more + "}}]}");
  };
  EXPECT_EQ(layer(R"("tp": 2, "heads": 2)"), "accepted");
  EXPECT_THAT(layer(R"("tp": 3)"), ::testing::HasSubstr("3 do not divide 4 ranks"));
  EXPECT_THAT(layer(R"("heads": 3)"), ::testing::HasSubstr("3 do not divide 8 columns of a token"));
  EXPECT_THAT(layer(R"("tp": 5)"), ::testing::HasSubstr("/points/0/layer/tp"));
}

TEST(MpiTraffic, MovesEveryCopyToEachRankThatSharesItsExpert) {
  for (const int tp : {1, 2}) {
    MpiLayer layer{32, 64, 128, 8, 2, true, 1.0, 5};
    layer.tp = tp;
    const MpiTraffic traffic = mpi_traffic(layer, 4, draw_mpi_routing(layer, 4));
    double rows = 0;
    for (const double of : traffic.rows_per_expert) rows += of;
    EXPECT_EQ(rows, 32 * 4 * 2);
    double bytes = 0;
    for (const double value : traffic.dispatch.values()) bytes += value;
    EXPECT_EQ(bytes, tp * rows * 64 * 4);
    if (tp == 2) EXPECT_EQ(traffic.dispatch.at(0, 2), traffic.dispatch.at(0, 3));
  }
}

}  // namespace
}  // namespace moecast
