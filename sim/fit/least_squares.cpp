#include "sim/fit/least_squares.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <unsupported/Eigen/NonLinearOptimization>
#include <unsupported/Eigen/NumericalDiff>
#include <vector>

namespace moecast {
namespace {

/// Square root of the soft-L1 loss, with the sign of the residual: least squares of it is the robust fit.
double soften(double residual, double scale) {
  const double z = residual / scale;
  return std::copysign(scale * std::sqrt(2 * (std::sqrt(1 + z * z) - 1)), residual);
}

struct Functor {
  using Scalar = double;
  using InputType = Eigen::VectorXd;
  using ValueType = Eigen::VectorXd;
  using JacobianType = Eigen::MatrixXd;
  enum { InputsAtCompileTime = Eigen::Dynamic, ValuesAtCompileTime = Eigen::Dynamic };

  const LeastSquaresProblem& problem;
  int input_count;
  int value_count;

  [[nodiscard]] int inputs() const { return input_count; }
  [[nodiscard]] int values() const { return value_count; }
  int operator()(const Eigen::VectorXd& parameters, Eigen::VectorXd& out) const {
    out = evaluate(problem, parameters);
    return 0;
  }
  static Eigen::VectorXd evaluate(const LeastSquaresProblem& problem, const Eigen::VectorXd& parameters) {
    Eigen::VectorXd data = problem.residuals(parameters);
    for (double& residual : data) residual = soften(residual, problem.soft_scale);
    if (!problem.penalties) return data;
    const Eigen::VectorXd penalty = problem.penalties(parameters);
    Eigen::VectorXd all(data.size() + penalty.size());
    all << data, penalty;
    return all;
  }
};

}  // namespace

Eigen::VectorXd fit_least_squares(const LeastSquaresProblem& problem, const Eigen::VectorXd& start) {
  const Eigen::VectorXd first = Functor::evaluate(problem, start);
  if (first.size() < start.size()) return start;
  const Functor functor{problem, static_cast<int>(start.size()), static_cast<int>(first.size())};
  // Forward differences in log parameters: a step of 1e-4 is far above rounding and far below any curvature.
  Eigen::NumericalDiff<Functor> differentiable(functor, 1e-8);
  Eigen::LevenbergMarquardt<Eigen::NumericalDiff<Functor>> solver(differentiable);
  solver.parameters.maxfev = problem.most_evaluations * (static_cast<int>(start.size()) + 1);
  solver.parameters.ftol = 1e-9;
  solver.parameters.xtol = 1e-7;
  Eigen::VectorXd parameters = start;
  solver.minimize(parameters);
  const double loss = Functor::evaluate(problem, parameters).squaredNorm();
  return std::isfinite(loss) && loss < first.squaredNorm() ? parameters : start;
}

Eigen::VectorXd fit_non_negative(const Eigen::MatrixXd& x, const Eigen::VectorXd& y) {
  const Eigen::Index columns = x.cols();
  Eigen::VectorXd solution = Eigen::VectorXd::Zero(columns);
  std::vector<Eigen::Index> active;
  const auto solve_active = [&] {
    Eigen::MatrixXd part(x.rows(), static_cast<Eigen::Index>(active.size()));
    for (std::size_t i = 0; i < active.size(); ++i) part.col(static_cast<Eigen::Index>(i)) = x.col(active[i]);
    return Eigen::VectorXd(part.colPivHouseholderQr().solve(y));
  };
  const double tolerance = 1e-10 * x.norm() * std::max(1.0, y.norm());
  for (Eigen::Index iteration = 0; iteration < 3 * columns; ++iteration) {
    Eigen::VectorXd gradient = x.transpose() * (y - x * solution);
    for (const Eigen::Index used : active) gradient(used) = -std::numeric_limits<double>::infinity();
    Eigen::Index best = 0;
    if (gradient.maxCoeff(&best) <= tolerance) break;
    active.push_back(best);
    Eigen::VectorXd trial = solve_active();
    while (trial.size() > 0 && trial.minCoeff() <= 0) {
      // Walk from the old point towards the trial until the first coefficient reaches zero, and let that one go.
      double step = 1;
      for (std::size_t i = 0; i < active.size(); ++i) {
        const double old = solution(active[i]);
        const double wanted = trial(static_cast<Eigen::Index>(i));
        if (wanted <= 0) step = std::min(step, old / std::max(old - wanted, 1e-300));
      }
      std::vector<Eigen::Index> kept;
      for (std::size_t i = 0; i < active.size(); ++i) {
        double& value = solution(active[i]);
        value += step * (trial(static_cast<Eigen::Index>(i)) - value);
        if (value > 1e-14 * std::max(1.0, solution.maxCoeff())) {
          kept.push_back(active[i]);
        } else {
          value = 0;
        }
      }
      active = kept;
      trial = active.empty() ? Eigen::VectorXd() : solve_active();
    }
    solution.setZero();
    for (std::size_t i = 0; i < active.size(); ++i) solution(active[i]) = trial(static_cast<Eigen::Index>(i));
  }
  return solution;
}

}  // namespace moecast
