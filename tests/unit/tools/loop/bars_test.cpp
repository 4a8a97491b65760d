#include "tools/loop/bars.h"

#include <gtest/gtest.h>

namespace moecast {
namespace {

TEST(JudgeError, PassesAtTheBarOrAtTheNoise) {
  EXPECT_EQ(judge_error(0.07, 0.07, 0.01), Verdict::passed);
  EXPECT_EQ(judge_error(0.08, 0.07, 0.01), Verdict::missed);
  EXPECT_EQ(judge_error(0.08, 0.07, 0.06), Verdict::passed);  // 1.5 * 0.06 = 0.09
  EXPECT_EQ(judge_error(0.01, 0.07, 0.11), Verdict::undecided);
}

TEST(JudgeError, DecidesNothingWhenTheNoiseIsUnknown) {
  EXPECT_EQ(judge_error(0.01, 0.07, std::nullopt), Verdict::undecided);
  EXPECT_EQ(judge_error(0.50, 0.07, std::nullopt), Verdict::undecided);
}

TEST(JudgeTau, NeedsEnoughCasesAndAnOrder) {
  EXPECT_EQ(judge_tau(0.98, 10), Verdict::passed);
  EXPECT_EQ(judge_tau(0.96, 10), Verdict::missed);
  EXPECT_EQ(judge_tau(0.5, 9), Verdict::undecided);
  EXPECT_EQ(judge_tau(std::nullopt, 1), Verdict::undecided);
  EXPECT_EQ(judge_tau(std::nullopt, 10), Verdict::undecided);
}

TEST(JudgeCoverage, NeedsEnoughCasesToCallItMissed) {
  EXPECT_EQ(judge_coverage(180, 200), Verdict::passed);
  EXPECT_EQ(judge_coverage(140, 200), Verdict::missed);   // 70 %
  EXPECT_EQ(judge_coverage(200, 200), Verdict::missed);   // 0.94^200 = 4e-6
  EXPECT_EQ(judge_coverage(20, 20), Verdict::undecided);  // 0.94^20 = 0.29
  EXPECT_EQ(judge_coverage(8, 10), Verdict::undecided);
  EXPECT_EQ(judge_coverage(0, 0), Verdict::undecided);
}

TEST(JudgeBaselines, HalfTheRooflineAndBelowTheNearest) {
  EXPECT_EQ(judge_baselines(0.05, 0.20, 0.08, 0.01), Verdict::passed);
  EXPECT_EQ(judge_baselines(0.05, 0.08, 0.08, 0.01), Verdict::missed);  // 0.05 > 0.04
  EXPECT_EQ(judge_baselines(0.05, 0.20, 0.04, 0.01), Verdict::missed);
}

TEST(Worse, MissedOverUndecidedOverPassed) {
  EXPECT_EQ(worse(Verdict::undecided, Verdict::missed), Verdict::missed);
  EXPECT_EQ(worse(Verdict::passed, Verdict::undecided), Verdict::undecided);
  EXPECT_EQ(worse(Verdict::passed, Verdict::passed), Verdict::passed);
}

TEST(BarsOf, KnowsThePromisedStrata) {
  EXPECT_DOUBLE_EQ(bars_of("onednn fp32, 1 thread")->many.value(), 0.05);
  EXPECT_DOUBLE_EQ(bars_of("transformers")->p90_all, 0.16);
  EXPECT_FALSE(bars_of("eigen fp32, 1 thread").has_value());
}

}  // namespace
}  // namespace moecast
