#pragma once
#include <Eigen/Core>
#include <functional>

namespace moecast {

/// A fit in log space: data residuals go through a soft-L1 loss, prior residuals do not.
struct LeastSquaresProblem {
  /// ln(predicted) - ln(measured) of every point, as a function of the parameters.
  std::function<Eigen::VectorXd(const Eigen::VectorXd&)> residuals;
  /// Terms that hold parameters near their priors or a curve smooth; squared as they are. May be empty.
  std::function<Eigen::VectorXd(const Eigen::VectorXd&)> penalties;
  /// Residual at which the loss turns from square to linear.
  double soft_scale = 0.1;
  int most_evaluations = 60;  ///< of the Jacobian
};

/// Levenberg-Marquardt with a numerical Jacobian (Eigen's MINPACK port).
/// @return the parameters with the least loss found, the start where nothing is better.
Eigen::VectorXd fit_least_squares(const LeastSquaresProblem& problem, const Eigen::VectorXd& start);

/// Non-negative coefficients c that minimise |X c - y|; columns that want to be negative get 0 (Lawson and Hanson).
Eigen::VectorXd fit_non_negative(const Eigen::MatrixXd& x, const Eigen::VectorXd& y);

}  // namespace moecast
