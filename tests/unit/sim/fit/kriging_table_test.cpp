#include "sim/fit/kriging_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace moecast {
namespace {

TEST(LaneMath, AgreesWithTheStandardLibrary) {
  for (double x = -60; x < 60; x += 0.0137) {
    EXPECT_NEAR(static_cast<double>(lane_exp2(static_cast<float>(x))) / std::exp2(static_cast<float>(x)), 1, 5e-7);
    const auto y = static_cast<float>(std::exp2(x));
    EXPECT_NEAR(static_cast<double>(lane_log2(y)), std::log2(y), 4e-7 + 1e-7 * std::abs(x));
  }
  EXPECT_EQ(lane_log2(1), 0);
  EXPECT_EQ(lane_exp2(3), 8);
}

/// 300 points of a wave of +-10 % over three features of 10 octaves.
Kriging waves() {
  std::mt19937 generator(4);
  std::uniform_real_distribution<double> u(0, 10);
  Eigen::MatrixXd features(300, 3);
  Eigen::VectorXd residuals(300);
  for (Eigen::Index i = 0; i < 300; ++i) {
    for (Eigen::Index j = 0; j < 3; ++j) features(i, j) = u(generator);
    residuals(i) = 0.1 * std::sin(0.8 * features(i, 0) + 0.5 * features(i, 1)) * std::cos(0.6 * features(i, 2));
  }
  Kriging::Options options;
  options.prior_lengths = Eigen::Vector3d(2, 2, 2);
  return {features, residuals, options};
}

TEST(KrigingLanes, AreTheResidualInSinglePrecision) {
  const Kriging kriging = waves();
  const KrigingLanes lanes(kriging);
  std::mt19937 generator(6);
  std::uniform_real_distribution<float> u(-3, 13);
  for (int i = 0; i < 2000; ++i) {
    const std::array<float, KrigingLanes::kMostFeatures> x{u(generator), u(generator), u(generator)};
    const auto exact = kriging.evaluate(Eigen::Vector3d(x[0], x[1], x[2]));
    EXPECT_NEAR(lanes.evaluate(x).mean, exact.mean, 2e-5);
    EXPECT_NEAR(lanes.evaluate(x).nearness, exact.nearness, 2e-6);
  }
  EXPECT_EQ(KrigingLanes(Kriging()).evaluate({}).mean, 0);
}

TEST(KrigingTable, DepartsFromTheResidualByLittle) {
  const Kriging kriging = waves();
  const KrigingTable table(kriging, {{0, 10, 0}, {0, 10, 0}, {0, 10, 0}});
  EXPECT_EQ(table.filled(), 0U);
  std::mt19937 generator(5);
  std::uniform_real_distribution<float> u(-1, 11);  // outside the grid as well
  std::vector<double> errors;
  for (int round = 0; round < 200; ++round) {
    KrigingTable::Lanes x{};
    KrigingTable::Answer answer{};
    for (auto& feature : x) {
      for (float& value : feature) value = u(generator);
    }
    table.evaluate(x, kLanes, answer);
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const auto exact = kriging.evaluate(Eigen::Vector3d(x[0][lane], x[1][lane], x[2][lane]));
      errors.push_back(std::abs(static_cast<double>(answer.mean[lane]) - exact.mean));
      EXPECT_NEAR(static_cast<double>(answer.nearness[lane]), exact.nearness, 0.1);
    }
  }
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() / 2], 0.001);
  EXPECT_LT(errors.back(), 0.006);
  EXPECT_GT(table.filled(), 0U);
  EXPECT_LT(table.filled(), table.nodes());
}

TEST(KrigingTable, IsExactAtNodesAndWithoutResidual) {
  const Kriging kriging = waves();
  const KrigingTable table(kriging, {{0, 10, 10}, {0, 10, 10}, {0, 10, 10}});
  KrigingTable::Lanes x{};
  KrigingTable::Answer answer{};
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    x[0][lane] = static_cast<float>(lane % 11);
    x[1][lane] = 10;
    x[2][lane] = 0;
  }
  table.evaluate(x, kLanes, answer);
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    EXPECT_NEAR(static_cast<double>(answer.mean[lane]), kriging.mean(Eigen::Vector3d(x[0][lane], 10, 0)), 4e-5);
  }
  const KrigingTable none(Kriging(), {{0, 1, 1}});
  none.evaluate(x, kLanes, answer);
  EXPECT_EQ(answer.mean[3], 0);
}

}  // namespace
}  // namespace moecast
