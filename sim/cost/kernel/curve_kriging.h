#pragma once
#include <Eigen/Core>
#include <vector>

namespace moecast {

/// Correlation of two curves: a sum of Matern 3/2 terms, each over some of the features, scaled.
struct CurveKernel {
  struct Scale {
    int feature = 0;
    double length = 1;  ///< in units of the feature
  };
  struct Term {
    double variance = 1;
    std::vector<Scale> scales;
  };
  std::vector<Term> terms;

  [[nodiscard]] double variance() const;  ///< of a curve: the sum over the terms
};

/// Kriging over whole curves: the weights depend on the configuration only, and all positions on a curve share them.
struct CurveFit {
  Eigen::MatrixXd inverse;  ///< (K + noise)^-1, curves x curves
  Eigen::MatrixXd values;   ///< curves x nodes, outliers pulled to what the other curves say
  Eigen::VectorXd noise;    ///< variance a curve
  [[nodiscard]] Eigen::MatrixXd weights() const { return inverse * values; }
};

struct CurveOptions {
  double noise = 0.15;  ///< variance of a curve about the smooth surface
  int rounds = 3;       ///< of pulling outliers and distrusting bad curves
  double clip = 2.5;    ///< robust standard deviations at which a left-out residual is cut
};

/// Covariance of the rows of a and b.
Eigen::MatrixXd curve_covariance(const CurveKernel& kernel, const Eigen::MatrixXd& a, const Eigen::MatrixXd& b);

/// @param covariance  of the training curves, no noise; at least one curve.
/// @param values      curves x nodes.
CurveFit fit_curves(const Eigen::MatrixXd& covariance, const Eigen::MatrixXd& values, const CurveOptions& options);

}  // namespace moecast
