#include "sim/cost/kernel/curve_kriging.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>

namespace moecast {
namespace {

constexpr double kRobustScale = 1.4826;  ///< median absolute deviation to standard deviation of a normal
constexpr double kLeastScale = 0.01;     ///< repeated measurements differ by this much

double median_of(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double median_absolute(const Eigen::Ref<const Eigen::MatrixXd>& values) {
  std::vector<double> sorted;
  sorted.reserve(static_cast<std::size_t>(values.size()));
  for (Eigen::Index j = 0; j < values.cols(); ++j) {
    for (Eigen::Index i = 0; i < values.rows(); ++i) sorted.push_back(std::abs(values(i, j)));
  }
  return median_of(sorted);
}

Eigen::MatrixXd invert(const Eigen::MatrixXd& covariance, const Eigen::VectorXd& noise) {
  Eigen::MatrixXd with_noise = covariance;
  with_noise.diagonal() += noise;
  return with_noise.llt().solve(Eigen::MatrixXd::Identity(covariance.rows(), covariance.cols()));
}

}  // namespace

double CurveKernel::variance() const {
  double sum = 0;
  for (const Term& term : terms) sum += term.variance;
  return sum;
}

Eigen::MatrixXd curve_covariance(const CurveKernel& kernel, const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
  Eigen::MatrixXd sum = Eigen::MatrixXd::Zero(a.rows(), b.rows());
  for (const CurveKernel::Term& term : kernel.terms) {
    Eigen::ArrayXXd squared = Eigen::ArrayXXd::Zero(a.rows(), b.rows());
    for (const CurveKernel::Scale& scale : term.scales) {
      const Eigen::ArrayXd left = a.col(scale.feature).array() / scale.length;
      const Eigen::ArrayXd right = b.col(scale.feature).array() / scale.length;
      for (Eigen::Index j = 0; j < b.rows(); ++j) squared.col(j) += (left - right(j)).square();
    }
    squared = (3 * squared).sqrt();
    sum.array() += term.variance * (1 + squared) * (-squared).exp();
  }
  return sum;
}

CurveFit fit_curves(const Eigen::MatrixXd& covariance, const Eigen::MatrixXd& values, const CurveOptions& options) {
  CurveFit fit;
  fit.values = values;
  fit.noise = Eigen::VectorXd::Constant(covariance.rows(), options.noise);
  for (int round = 0;; ++round) {
    fit.inverse = invert(covariance, fit.noise);
    if (round == options.rounds) return fit;
    const Eigen::MatrixXd left_out = fit.inverse.diagonal().cwiseInverse().asDiagonal() * (fit.inverse * values);
    const double scale = kRobustScale * median_absolute(left_out) + kLeastScale;
    const double limit = options.clip * scale;
    fit.values = values - left_out + left_out.cwiseMax(-limit).cwiseMin(limit);
    for (Eigen::Index curve = 0; curve < covariance.rows(); ++curve) {
      const double distrust = std::max(1.0, median_absolute(left_out.row(curve)) / scale);
      fit.noise(curve) = options.noise * distrust * distrust;
    }
  }
}

}  // namespace moecast
