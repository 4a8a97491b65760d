#include "profiler/cpu/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "models/core/error.h"
#include "profiler/reference/cases.h"
#include "profiler/reference/executable.h"

namespace moecast {
namespace {

PlanOptions options() {
  PlanOptions plan;
  plan.combinations = {{"eigen", DType::fp32, 1}, {"eigen", DType::fp32, 2}};
  return plan;
}

TEST(InitialPoints, CoverRowsWidthsAndFootprints) {
  std::map<OperatorKind, int> kinds;
  int warm = 0;
  int cold = 0;
  int few = 0;
  int many = 0;
  for (const KernelPoint& point : initial_points(options())) {
    ++kinds[point.kind];
    if (point.kind != OperatorKind::gemm) continue;
    EXPECT_GE(point.shape.n, 4);
    EXPECT_LE(2.0 * static_cast<double>(point.shape.m * point.shape.n * point.shape.k), 12e9);
    (point.footprint.value() < 1e6 ? warm : cold) += point.footprint.value() < 1e6 || point.footprint.value() > 200e6;
    (point.shape.m <= 16 ? few : many) += point.shape.m <= 16 || point.shape.m > 256;
  }
  EXPECT_EQ(kinds[OperatorKind::gemm], 2 * (32 + 150 + 16));
  EXPECT_EQ(kinds[OperatorKind::activation], 2 * 2 * 24);
  EXPECT_EQ(kinds[OperatorKind::fused_moe], 2 * 5);
  EXPECT_EQ(kinds[OperatorKind::call], 2);
  EXPECT_EQ(kinds[OperatorKind::read], 2 * 4);  // three cache levels and memory, two thread counts
  EXPECT_EQ(kinds.size(), 13U);
  for (const int share : {warm, cold, few, many}) EXPECT_GT(share, 40);
}

TEST(IndispensablePoints, NameEveryLevelAndAFewOfEveryKind) {
  const std::vector<KernelPoint> points = initial_points(options());
  const std::vector<bool> needed = indispensable_points(points);
  ASSERT_EQ(needed.size(), points.size());
  std::map<std::pair<OperatorKind, int>, int> of_kind;
  for (std::size_t i = 0; i < points.size(); ++i) {
    int& count = of_kind[{points[i].kind, points[i].threads}];
    count += needed[i] ? 1 : 0;
    if (points[i].kind == OperatorKind::read) {
      EXPECT_TRUE(needed[i]);
    }
  }
  for (const auto& [kind, count] : of_kind) EXPECT_GT(count, 0) << to_string(kind.first);
  EXPECT_LT(std::count(needed.begin(), needed.end(), true), static_cast<std::ptrdiff_t>(points.size() / 2));
}

TEST(CandidatePoints, DifferByTheSeedAndFromTheFirstPoints) {
  const auto first = initial_points(options());
  const auto a = candidate_points(options(), 1, 100);
  const auto b = candidate_points(options(), 2, 100);
  EXPECT_EQ(a.size(), 200U);
  EXPECT_FALSE(a[0] == b[0]);
  int again = 0;
  for (const KernelPoint& point : a) again += std::find(first.begin(), first.end(), point) != first.end() ? 1 : 0;
  EXPECT_LT(again, 3);
}

TEST(DrawCases, KeepTheirRangesAndRepeatBySeed) {
  CaseOptions wanted;
  wanted.cases = 120;
  wanted.combinations = options().combinations;
  const auto cases = draw_cases(wanted);
  ASSERT_EQ(cases.size(), 120U);
  std::map<std::string, int> strata;
  std::array<int, 3> bands{};
  for (const ValidationCase& c : cases) {
    ++strata[c.stratum];
    EXPECT_GE(c.architecture.hidden, 256);
    EXPECT_LE(c.architecture.hidden, 4096);
    if (c.stratum != "transformers") ++bands[c.workload.batch <= 16 ? 0 : c.workload.batch <= 256 ? 1 : 2];
  }
  EXPECT_EQ(strata.size(), 6U);  // two combinations, three strategies, transformers
  for (const int band : bands) EXPECT_NEAR(band, 33, 6);
  EXPECT_EQ(draw_cases(wanted)[77].architecture.hidden, cases[77].architecture.hidden);
  wanted.seed = 2;
  int same = 0;
  const auto others = draw_cases(wanted);
  for (std::size_t i = 0; i < cases.size(); ++i) same += others[i].architecture.hidden == cases[i].architecture.hidden;
  EXPECT_LT(same, 60);
}

TEST(DrawCases, RefuseLimitsThatNothingMeets) {
  CaseOptions wanted;
  wanted.combinations = options().combinations;
  wanted.most_flops = 1;
  EXPECT_THROW(draw_cases(wanted), UsageError);
}

TEST(DrawCases, CanAllBeExecuted) {
  CaseOptions wanted;
  wanted.cases = 24;
  wanted.most_weight_bytes = 20e6;
  wanted.most_flops = 2e9;
  wanted.combinations = options().combinations;
  for (const ValidationCase& c : draw_cases(wanted)) {
    ExecutableOptions fast;
    fast.variety = WeightVariety::alike;
    const auto executable = make_executable(c.architecture, c.deployment, c.workload, fast);
    executable->prepare();
    EXPECT_NO_THROW(executable->run()) << c.stratum;
  }
}

}  // namespace
}  // namespace moecast
