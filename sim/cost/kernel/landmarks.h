#pragma once
#include <Eigen/Core>
#include <vector>

#include "sim/cost/kernel/curve_kriging.h"

namespace moecast {

/// Curves that stand for all in the variance of a prediction: far from all of them is far from what was measured.
struct LandmarkFit {
  std::vector<Eigen::Index> rows;
  Eigen::MatrixXd factor;  ///< inverse of the Cholesky factor of their covariance with noise
};

/// Pivoted Cholesky: each landmark is the curve that those before it explain least. @param features  curves x features.
LandmarkFit choose_landmarks(const CurveKernel& kernel, const Eigen::MatrixXd& features);

/// These rows of a matrix.
Eigen::MatrixXd rows_of(const Eigen::MatrixXd& from, const std::vector<Eigen::Index>& rows);

}  // namespace moecast
