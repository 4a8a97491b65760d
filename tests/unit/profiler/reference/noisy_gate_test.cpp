#include "profiler/reference/noisy_gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "models/core/error.h"

namespace moecast {
namespace {

Matrix normal_matrix(std::int64_t rows, std::int64_t cols, unsigned seed) {
  Matrix out(rows, cols);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (float& value : out.values) value = normal(random);
  return out;
}

TEST(CvSquared, IsTheUnbiasedVarianceOverTheSquaredMean_D7) {
  // values 1 2 3 6: mean 3, squares 4 + 1 + 0 + 9 = 14, / 3 = 4.6667, / (9 + 1e-10) = 0.518519
  const std::vector<float> values{1, 2, 3, 6};
  EXPECT_NEAR(cv_squared(values), 14.0 / 3 / (9 + 1e-10), 1e-12);
  const std::vector<float> one{5};
  EXPECT_EQ(cv_squared(one), 0);
}

TEST(GatesToLoad, CountsPositiveGates_D7) {
  Matrix gates(3, 2);
  gates.values = {0.25F, 0.75F, 0, 1, 0, 1};
  EXPECT_EQ(gates_to_load(gates), (std::vector<float>{1, 3}));
  EXPECT_EQ(gates_to_importance(gates), (std::vector<float>{0.25F, 2.75F}));
}

TEST(ProbInTopK, EqualsTheFormulaOnFixedNumbers_D7) {
  // One token, k = 1, noisy = (2, 1, 0): expert 0 is in and must beat the 2nd value 1, the others must beat the 1st, 2.
  Matrix clean(1, 3);
  clean.values = {1.5F, 1.0F, 0.5F};
  Matrix noisy(1, 3);
  noisy.values = {2, 1, 0};
  Matrix stddev(1, 3);
  stddev.values = {0.5F, 1.0F, 2.0F};
  Matrix top(1, 2);
  top.values = {2, 1};
  const Matrix prob = prob_in_top_k(clean, noisy, stddev, top, 1);
  EXPECT_NEAR(prob.at(0, 0), 0.8413447461, 1e-6);  // Phi((1.5 - 1) / 0.5) = Phi(1)
  EXPECT_NEAR(prob.at(0, 1), 0.1586552539, 1e-6);  // Phi((1 - 2) / 1) = Phi(-1)
  EXPECT_NEAR(prob.at(0, 2), 0.2266273524, 1e-6);  // Phi((0.5 - 2) / 2) = Phi(-0.75)
}

TEST(ProbInTopK, AgreesWithRedrawingTheNoiseOfOneExpert_D7) {
  const int k = 4;
  const Matrix clean = normal_matrix(1, 10, 1);
  const NoisyGates gated =
      noisy_top_k_gates(clean, normal_matrix(1, 10, 2), normal_matrix(1, 10, 3), {.top_k = k, .epsilon = 1e-2});
  const Matrix prob = prob_in_top_k(clean, gated.noisy, gated.stddev, gated.top_values, k);
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  const int draws = 40000;
  for (std::int64_t e = 0; e < 10; ++e) {
    int inside = 0;
    for (int d = 0; d < draws; ++d) {
      const float value = clean.at(0, e) + normal(random) * gated.stddev.at(0, e);
      int larger = 0;
      for (std::int64_t other = 0; other < 10; ++other) larger += other != e && gated.noisy.at(0, other) > value;
      inside += larger < k;
    }
    // three standard deviations of a binomial share: 3 * 0.5 / sqrt(40000) = 0.0075
    EXPECT_NEAR(static_cast<double>(inside) / draws, prob.at(0, e), 0.0075) << e;
  }
}

TEST(NoisyTopKGates, KeepKExpertsThatSumToOne_D7) {
  // The reference configuration: batch 5, 10 experts, k = 4, epsilon 1e-2.
  for (const ScoreOrder order : {ScoreOrder::score_then_top_k, ScoreOrder::top_k_then_score}) {
    const Matrix clean = normal_matrix(5, 10, 5);
    const Matrix raw = normal_matrix(5, 10, 6);
    const Matrix draws = normal_matrix(5, 10, 7);
    const NoisyGates out = noisy_top_k_gates(clean, raw, draws, {.top_k = 4, .epsilon = 1e-2, .order = order});
    double total_load = 0;
    for (const float load : out.load) total_load += load;
    EXPECT_GT(total_load, 0);
    EXPECT_LT(total_load, 50);
    for (std::int64_t t = 0; t < 5; ++t) {
      int chosen = 0;
      double sum = 0;
      for (std::int64_t e = 0; e < 10; ++e) {
        const double expected_stddev = std::log1p(std::exp(static_cast<double>(raw.at(t, e)))) + 1e-2;
        EXPECT_NEAR(out.stddev.at(t, e), expected_stddev, 1e-6);
        EXPECT_NEAR(out.noisy.at(t, e), clean.at(t, e) + draws.at(t, e) * expected_stddev, 1e-5);
        chosen += out.gates.at(t, e) > 0;
        sum += out.gates.at(t, e);
        EXPECT_EQ(out.gates.at(t, e) > 0, out.noisy.at(t, e) > out.top_values.at(t, 4));
      }
      EXPECT_EQ(chosen, 4);
      EXPECT_NEAR(sum, 1, order == ScoreOrder::top_k_then_score ? 1e-6 : 1e-5);
    }
  }
}

TEST(NoisyTopKGates, CountTheirLoadInEvaluation_D7) {
  const NoisyGates out = noisy_top_k_gates(normal_matrix(5, 10, 8), {}, {}, {.top_k = 4});
  float total = 0;
  for (const float load : out.load) total += load;
  EXPECT_EQ(total, 20);
  EXPECT_TRUE(out.stddev.values.empty());
}

TEST(NoisyTopKGates, RefuseMoreThanAllExperts) {
  EXPECT_THROW(noisy_top_k_gates(Matrix(2, 3), {}, {}, {.top_k = 4}), UsageError);
}

}  // namespace
}  // namespace moecast
