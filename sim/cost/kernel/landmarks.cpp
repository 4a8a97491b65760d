#include "sim/cost/kernel/landmarks.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>

namespace moecast {
namespace {

constexpr int kLandmarks = 64;
/// Landmarks are chosen until none adds more than this to what the others explain.
constexpr double kLeastLandmark = 0.05;
constexpr double kLandmarkNoise = 0.15;

}  // namespace

Eigen::MatrixXd rows_of(const Eigen::MatrixXd& from, const std::vector<Eigen::Index>& rows) {
  Eigen::MatrixXd picked(static_cast<Eigen::Index>(rows.size()), from.cols());
  for (std::size_t i = 0; i < rows.size(); ++i) picked.row(static_cast<Eigen::Index>(i)) = from.row(rows[i]);
  return picked;
}

LandmarkFit choose_landmarks(const CurveKernel& kernel, const Eigen::MatrixXd& features) {
  const Eigen::Index n = features.rows();
  if (n == 0) return {};
  Eigen::VectorXd left = Eigen::VectorXd::Constant(n, kernel.variance());
  LandmarkFit fit;
  Eigen::MatrixXd columns(n, std::min<Eigen::Index>(n, kLandmarks));
  while (std::ssize(fit.rows) < columns.cols()) {
    Eigen::Index pivot = 0;
    const double most = left.maxCoeff(&pivot);
    if (most < kLeastLandmark) break;
    const auto step = static_cast<Eigen::Index>(fit.rows.size());
    Eigen::VectorXd column = curve_covariance(kernel, features, features.row(pivot));
    column -= columns.leftCols(step) * columns.row(pivot).head(step).transpose();
    column /= std::sqrt(most + kLandmarkNoise);
    columns.col(step) = column;
    left -= column.cwiseAbs2();
    left(pivot) = 0;
    fit.rows.push_back(pivot);
  }
  const Eigen::MatrixXd picked = rows_of(features, fit.rows);
  Eigen::MatrixXd covariance = curve_covariance(kernel, picked, picked);
  covariance.diagonal().array() += kLandmarkNoise;
  const Eigen::MatrixXd lower = covariance.llt().matrixL();
  fit.factor = lower.triangularView<Eigen::Lower>().solve(Eigen::MatrixXd::Identity(lower.rows(), lower.cols()));
  return fit;
}

}  // namespace moecast
