#include "profiler/reference/sparse_dispatcher.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "models/core/error.h"
#include "profiler/reference/noisy_gate.h"

namespace moecast {
namespace {

Matrix uniform_matrix(std::int64_t rows, std::int64_t cols, unsigned seed) {
  Matrix out(rows, cols);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& value : out.values) value = uniform(random);
  return out;
}

Matrix gates_of(std::int64_t tokens, std::int64_t experts, int k, unsigned seed) {
  return noisy_top_k_gates(uniform_matrix(tokens, experts, seed), {}, {}, {.top_k = k}).gates;
}

TEST(SparseDispatcher, SendsEveryTokenKTimes_D8) {
  const SparseDispatcher dispatcher(gates_of(37, 10, 4, 1));
  const auto& sizes = dispatcher.part_sizes();
  EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}), 37 * 4);
}

TEST(SparseDispatcher, IdentityExpertsReturnInputTimesGates_D8) {
  Matrix gates = gates_of(23, 6, 3, 2);
  for (float& gate : gates.values) gate *= 1.7F;  // sums other than 1
  const Matrix x = uniform_matrix(23, 11, 3);
  const SparseDispatcher dispatcher(gates);
  const Matrix y = dispatcher.combine(dispatcher.dispatch(x));
  for (std::int64_t t = 0; t < 23; ++t) {
    float sum = 0;
    for (std::int64_t e = 0; e < 6; ++e) sum += gates.at(t, e);
    for (std::int64_t c = 0; c < 11; ++c) EXPECT_NEAR(y.at(t, c), x.at(t, c) * sum, 1e-5);
  }
}

TEST(SparseDispatcher, GivesEachExpertItsRowsAndGatesInBatchOrder_D8) {
  Matrix gates(3, 2);
  gates.values = {0.25F, 0.75F, 0, 1, 0.5F, 0};
  Matrix x(3, 1);
  x.values = {10, 20, 30};
  const SparseDispatcher dispatcher(gates);
  const std::vector<Matrix> parts = dispatcher.dispatch(x);
  EXPECT_EQ(dispatcher.part_sizes(), (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(parts[0].values, (std::vector<float>{10, 30}));
  EXPECT_EQ(parts[1].values, (std::vector<float>{10, 20}));
  EXPECT_EQ(dispatcher.expert_to_gates()[0], (std::vector<float>{0.25F, 0.5F}));
  EXPECT_EQ(dispatcher.expert_to_gates()[1], (std::vector<float>{0.75F, 1.0F}));
  EXPECT_EQ(dispatcher.combine(parts, false).values, (std::vector<float>{20, 20, 30}));
}

TEST(SparseDispatcher, SumsInLinearSpaceWhenOutputsAreLogarithms_D8) {
  Matrix gates(2, 2);
  gates.values = {0.25F, 0.75F, 0, 0};
  const SparseDispatcher dispatcher(gates);
  Matrix a(1, 1);
  a.values = {std::log(2.0F)};
  Matrix b(1, 1);
  b.values = {std::log(6.0F)};
  const Matrix y = dispatcher.combine({a, b}, true, SparseDispatcher::Space::logarithm);
  EXPECT_NEAR(y.at(0, 0), std::log(0.25F * 2 + 0.75F * 6), 1e-6);
  EXPECT_NEAR(y.at(1, 0), -52 * std::log(2.0), 1e-4);  // no expert: log of the smallest step
}

TEST(SparseDispatcher, RefusesOutputsWithOtherRows) {
  const SparseDispatcher dispatcher(gates_of(5, 3, 1, 4));
  EXPECT_THROW(static_cast<void>(dispatcher.combine({Matrix(5, 2), Matrix(5, 2), Matrix(5, 2)})), UsageError);
  EXPECT_THROW(static_cast<void>(dispatcher.dispatch(Matrix(4, 2))), UsageError);
}

}  // namespace
}  // namespace moecast
