#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "sim/fit/kriging.h"
#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

TEST(FitLeastSquares, FindsALineThroughOutliers) {
  // y = 2 + 3 x at 50 points, every tenth 5 too high: the soft loss keeps the line.
  LeastSquaresProblem problem;
  problem.residuals = [](const Eigen::VectorXd& p) {
    Eigen::VectorXd r(50);
    for (int i = 0; i < 50; ++i) r(i) = p(0) + p(1) * i / 50.0 - (2 + 3 * i / 50.0 + (i % 10 == 0 ? 5 : 0));
    return r;
  };
  const Eigen::VectorXd fitted = fit_least_squares(problem, Eigen::Vector2d(0, 0));
  EXPECT_NEAR(fitted(0), 2, 0.05);
  EXPECT_NEAR(fitted(1), 3, 0.05);
}

TEST(FitLeastSquares, PenaltiesHoldWhatTheDataDoNotSay) {
  LeastSquaresProblem problem;
  problem.residuals = [](const Eigen::VectorXd& p) { return Eigen::VectorXd::Constant(3, p(0) - 1); };
  problem.penalties = [](const Eigen::VectorXd& p) { return Eigen::VectorXd::Constant(1, p(1) - 7); };
  const Eigen::VectorXd fitted = fit_least_squares(problem, Eigen::Vector2d(0, 0));
  EXPECT_NEAR(fitted(0), 1, 1e-4);
  EXPECT_NEAR(fitted(1), 7, 1e-4);
}

TEST(FitNonNegative, RecoversPositiveCoefficientsAndZeroesNegativeOnes) {
  Eigen::MatrixXd x(6, 3);
  x << 1, 2, 1, 1, 3, 0, 1, 5, 2, 1, 7, 1, 1, 11, 3, 1, 13, 0;
  const Eigen::VectorXd positive = fit_non_negative(x, x * Eigen::Vector3d(2, 0.5, 3));
  EXPECT_NEAR((positive - Eigen::Vector3d(2, 0.5, 3)).norm(), 0, 1e-8);
  const Eigen::VectorXd clipped = fit_non_negative(x, x * Eigen::Vector3d(2, 0.5, -0.3));
  EXPECT_EQ(clipped(2), 0);
  EXPECT_GE(clipped.minCoeff(), 0);
}

Kriging::Options plain_options() {
  Kriging::Options options;
  options.prior_lengths = Eigen::Vector2d(2, 2);
  options.least_length = 0.5;
  return options;
}

struct Data {
  Eigen::MatrixXd x;
  Eigen::VectorXd y;
};

Data smooth_data(int count) {
  std::mt19937 generator(3);
  std::uniform_real_distribution<double> uniform(0, 8);
  Data data{Eigen::MatrixXd(count, 2), Eigen::VectorXd(count)};
  for (int i = 0; i < count; ++i) {
    data.x.row(i) << uniform(generator), uniform(generator);
    data.y(i) = 0.3 * std::sin(0.7 * data.x(i, 0)) + 0.1 * data.x(i, 1);
  }
  return data;
}

TEST(Kriging, PredictsASmoothFunctionBetweenItsPoints) {
  const Data data = smooth_data(150);
  const Kriging kriging(data.x, data.y, plain_options());
  EXPECT_NEAR(kriging.mean(Eigen::Vector2d(4, 4)), 0.3 * std::sin(2.8) + 0.4, 0.05);
  EXPECT_NEAR(kriging.mean(Eigen::Vector2d(2.5, 6.5)), 0.3 * std::sin(0.7 * 2.5) + 0.65, 0.05);
}

TEST(Kriging, FallsBackToZeroAndItsPriorFarAway) {
  const Data data = smooth_data(60);
  const Kriging kriging(data.x, data.y, plain_options());
  const Eigen::Vector2d far(1e3, -1e3);
  EXPECT_NEAR(kriging.mean(far), 0, 1e-6);
  EXPECT_NEAR(kriging.deviation(far), std::sqrt(kriging.variance() + kriging.noise()), 1e-6);
  EXPECT_LT(kriging.deviation(Eigen::Vector2d(4, 4)), kriging.deviation(far));
}

TEST(Kriging, OneOutlierDoesNotBendItsNeighbours) {
  Data data = smooth_data(150);
  const double before = Kriging(data.x, data.y, plain_options()).mean(data.x.row(10).transpose());
  data.y(10) += 3;
  EXPECT_NEAR(Kriging(data.x, data.y, plain_options()).mean(data.x.row(10).transpose()), before, 0.4);
}

TEST(Kriging, RestoredFromItsPartsPredictsTheSame) {
  const Data data = smooth_data(40);
  const Kriging made(data.x, data.y, plain_options());
  const Kriging restored(made.features(), made.weights(), made.lengths(), made.variance(), made.noise());
  const Eigen::Vector2d point(3.3, 1.1);
  EXPECT_DOUBLE_EQ(restored.mean(point), made.mean(point));
  EXPECT_NEAR(restored.deviation(point), made.deviation(point), 1e-9);
}

}  // namespace
}  // namespace moecast
