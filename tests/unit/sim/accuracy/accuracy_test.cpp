#include "sim/accuracy/accuracy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/core/statistics.h"
#include "sim/accuracy/baselines.h"

namespace moecast {
namespace {

TEST(SummariseErrors, FollowsTheDefinition) {
  // Errors 0.1, 0, 0.5, 0.2 of measured 1, 2, 4, 10.
  const std::vector<Outcome> outcomes{{1.1, 1.0, 1.2, 1, 2.0, 1.0, 0.02},
                                      {2.0, 1.8, 2.2, 2, 4.0, 2.0, 0.04},
                                      {2.0, 1.9, 2.1, 4, 8.0, 4.0, 0.00},
                                      {12., 9.0, 13., 10, 20., 10., 0.02}};
  const auto summary = summarise_errors(outcomes);
  ASSERT_TRUE(summary.has_value());
  EXPECT_NEAR(summary->mape, 0.2, 1e-12);
  EXPECT_NEAR(summary->median_ape, 0.15, 1e-12);
  EXPECT_NEAR(summary->p90_ape, 0.41, 1e-9);           // 0.2 + 0.7 * 0.3
  EXPECT_NEAR(summary->within_10_ratio, 0.25, 1e-12);  // 1.1 is 0.10000000000000009 off
  EXPECT_NEAR(summary->coverage_90_ratio, 0.75, 1e-12);
  EXPECT_NEAR(*summary->roofline_mape, 1, 1e-12);
  EXPECT_NEAR(*summary->nearest_mape, 0, 1e-12);
  EXPECT_NEAR(*summary->noise_mape, 0.02, 1e-12);
}

TEST(SummariseErrors, IsUnknownForNothingAndForMissingBaselines) {
  EXPECT_FALSE(summarise_errors({}).has_value());
  const auto summary = summarise_errors({{1, 1, 1, 1, std::nullopt, 1.0, std::nullopt}});
  EXPECT_FALSE(summary->roofline_mape.has_value());
  EXPECT_FALSE(summary->noise_mape.has_value());
}

TEST(SummariseErrors, KnowsNoOrderOfOneOutcomeOrOfEqualOnes) {
  const auto tau = [](const std::vector<std::pair<double, double>>& predicted_and_measured) {
    std::vector<Outcome> outcomes;
    for (const auto& [predicted, measured] : predicted_and_measured) {
      outcomes.push_back({predicted, predicted, predicted, measured, std::nullopt, std::nullopt, std::nullopt});
    }
    return summarise_errors(outcomes)->kendall_tau;
  };
  EXPECT_FALSE(tau({{1, 2}}).has_value());
  EXPECT_FALSE(tau({{1, 2}, {1, 3}}).has_value());
  EXPECT_FALSE(tau({{1, 2}, {3, 2}}).has_value());
  EXPECT_EQ(tau({{1, 2}, {3, 4}}), 1.0);
}

TEST(KendallTau, IsOneForTheSameOrderAndCorrectsTies) {
  const std::vector<double> a{1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(kendall_tau(a, std::vector<double>{10, 20, 30, 40}).value(), 1);
  EXPECT_DOUBLE_EQ(kendall_tau(a, std::vector<double>{4, 3, 2, 1}).value(), -1);
  // Pairs: 5 concordant, 1 tied in b: 5 / sqrt(6 * 5).
  EXPECT_NEAR(kendall_tau(a, std::vector<double>{1, 1, 2, 3}).value(), 5 / std::sqrt(30.0), 1e-12);
  EXPECT_FALSE(kendall_tau(a, std::vector<double>{2, 2, 2, 2}).has_value());
  EXPECT_FALSE(kendall_tau(std::vector<double>{1}, std::vector<double>{1}).has_value());
}

TEST(Quantile, InterpolatesBetweenOrderStatistics) {
  EXPECT_DOUBLE_EQ(quantile({3, 1, 2}, 0.5), 2);
  EXPECT_DOUBLE_EQ(quantile({1, 2}, 0.25), 1.25);
  EXPECT_DOUBLE_EQ(median({7}), 7);
}

TEST(Baselines, ScaleByOperations) {
  std::vector<Measurement> rows;
  for (const std::int64_t m : {1, 8, 64, 512}) {
    Measurement row;
    row.point.backend = "onednn";
    row.point.shape.m = m;
    row.point.shape.n = row.point.shape.k = 256;
    row.latency = Seconds(2.0 * static_cast<double>(m) * 256 * 256 / 10e9);
    rows.push_back(row);
  }
  const Baselines baselines(rows);
  OperatorGraph graph;
  Operator op;
  op.dtype = DType::fp32;
  op.shape.m = 100;
  op.shape.n = op.shape.k = 300;
  op.count = 3;
  graph.operators.push_back(op);
  Deployment deployment;
  deployment.backend = "onednn";
  const double truth = 3 * 2.0 * 100 * 300 * 300 / 10e9;
  EXPECT_NEAR(*baselines.nearest_s(graph, deployment) / truth, 1, 1e-9);
  EXPECT_NEAR(*baselines.roofline_s(graph, deployment) / truth, 1, 0.1);
  deployment.backend = "eigen";
  EXPECT_FALSE(baselines.nearest_s(graph, deployment).has_value());
}

}  // namespace
}  // namespace moecast
