#include "sim/fit/kriging.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace moecast {
namespace {

/// Width of the priors of ln(length), ln(variance) and ln(noise) in the search.
constexpr double kLengthWidth = 0.5;
constexpr double kScaleWidth = 1.0;
constexpr double kNormalScale = 1.4826;  ///< median absolute deviation to standard deviation of a normal

/// Points that an evaluation works on at a time: on the stack, in whole vectors of any instruction set.
constexpr Eigen::Index kChunkPoints = 64;
using Chunk = Eigen::Array<double, Eigen::Dynamic, 1, Eigen::ColMajor, kChunkPoints, 1>;

double matern(double squared_distance) {
  const double s = std::sqrt(3 * squared_distance);
  return (1 + s) * std::exp(-s);
}

Eigen::MatrixXd gram(const Eigen::MatrixXd& features, const Eigen::VectorXd& lengths, double variance, double noise) {
  const Eigen::MatrixXd scaled = features * lengths.cwiseInverse().asDiagonal();
  const Eigen::Index n = scaled.rows();
  Eigen::MatrixXd k(n, n);
  for (Eigen::Index i = 0; i < n; ++i) {
    k(i, i) = variance + noise;
    for (Eigen::Index j = 0; j < i; ++j) {
      k(i, j) = k(j, i) = variance * matern((scaled.row(i) - scaled.row(j)).squaredNorm());
    }
  }
  return k;
}

double median_magnitude(const Eigen::VectorXd& values) {
  std::vector<double> sorted(static_cast<std::size_t>(values.size()));
  for (std::size_t i = 0; i < sorted.size(); ++i) sorted[i] = std::abs(values(static_cast<Eigen::Index>(i)));
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

}  // namespace

Kriging::Kriging(const Eigen::MatrixXd& features, const Eigen::VectorXd& residuals, const Options& options)
    : features_(features),
      lengths_(options.prior_lengths),
      variance_(options.prior_variance),
      noise_(options.prior_noise) {
  if (features_.rows() == 0) return;
  // Outliers are clipped before the lengths are chosen: one wild point would otherwise shorten all of them.
  Eigen::VectorXd smooth = residuals;
  winsorise(smooth, options);
  choose_lengths(smooth, options);
  scaled_ = features_ * lengths_.cwiseInverse().asDiagonal();
  for (int pass = 0; pass < options.winsorise_passes; ++pass) winsorise(smooth, options);
  invert();
  weights_ = inverse_ * smooth;
}

Kriging::Kriging(Eigen::MatrixXd features, Eigen::VectorXd weights, Eigen::VectorXd lengths, double variance,
                 double noise)
    : features_(std::move(features)),
      weights_(std::move(weights)),
      lengths_(std::move(lengths)),
      variance_(variance),
      noise_(noise),
      scaled_(features_ * lengths_.cwiseInverse().asDiagonal()) {}

void Kriging::invert() const {
  inverse_ = gram(features_, lengths_, variance_, noise_)
                 .ldlt()
                 .solve(Eigen::MatrixXd::Identity(features_.rows(), features_.rows()));
}

void Kriging::winsorise(Eigen::VectorXd& residuals, const Options& options) const {
  invert();
  const Eigen::VectorXd error = (inverse_ * residuals).cwiseQuotient(inverse_.diagonal());
  const double limit = options.winsorise_at * (kNormalScale * median_magnitude(error) + 0.01);
  residuals += error.cwiseMax(-limit).cwiseMin(limit) - error;
}

/// Cyclic coordinate descent on the negative log marginal likelihood with log-normal priors; steps halve twice.
void Kriging::choose_lengths(const Eigen::VectorXd& residuals, const Options& options) {
  const Eigen::Index count = options.prior_lengths.size();
  Eigen::VectorXd prior(count + 2);
  prior << options.prior_lengths.array().log().matrix(), std::log(options.prior_variance),
      std::log(options.prior_noise);
  const auto cost = [&](const Eigen::VectorXd& h) {
    const Eigen::VectorXd lengths = h.head(count).array().exp();
    const Eigen::LLT<Eigen::MatrixXd> factor(gram(features_, lengths, std::exp(h(count)), std::exp(h(count + 1))));
    if (factor.info() != Eigen::Success) return 1e300;
    double value = 0.5 * factor.matrixL().solve(residuals).squaredNorm();
    value += Eigen::MatrixXd(factor.matrixL()).diagonal().array().log().sum();
    for (Eigen::Index i = 0; i < h.size(); ++i) {
      const double width = i < count ? kLengthWidth : kScaleWidth;
      value += 0.5 * std::pow((h(i) - prior(i)) / width, 2);
    }
    return value;
  };
  Eigen::VectorXd best = prior;
  double least = cost(best);
  for (double step = 0.8; step > 0.1; step /= 2) {
    for (Eigen::Index i = 0; i < best.size(); ++i) {
      for (const double direction : {step, -step}) {
        for (int moves = 0; moves < 3; ++moves) {
          Eigen::VectorXd trial = best;
          trial(i) += direction;
          if (i < count) trial(i) = std::max(trial(i), std::log(options.least_length));
          if (trial(i) == best(i)) break;
          const double value = cost(trial);
          if (value >= least) break;
          best = trial;
          least = value;
        }
      }
    }
  }
  lengths_ = best.head(count).array().exp();
  variance_ = std::exp(best(count));
  noise_ = std::exp(best(count + 1));
}

template <class Consume>
void Kriging::for_correlations(const Eigen::Ref<const Eigen::VectorXd>& features, const Consume& consume) const {
  for (Eigen::Index first = 0; first < scaled_.rows(); first += kChunkPoints) {
    const Eigen::Index size = std::min(kChunkPoints, scaled_.rows() - first);
    Chunk s = Chunk::Zero(size);
    for (Eigen::Index j = 0; j < scaled_.cols(); ++j) {
      s += (scaled_.col(j).segment(first, size).array() - features(j) / lengths_(j)).square();
    }
    s = (3 * s).sqrt();
    s = (1 + s) * (-s).exp();
    consume(first, s);
  }
}

Kriging::Evaluation Kriging::evaluate(const Eigen::Ref<const Eigen::VectorXd>& features) const {
  Evaluation evaluation;
  for_correlations(features, [&](Eigen::Index first, const Chunk& correlation) {
    evaluation.mean += variance_ * correlation.matrix().dot(weights_.segment(first, correlation.size()));
    evaluation.nearness = std::max(evaluation.nearness, correlation.maxCoeff());
  });
  return evaluation;
}

double Kriging::deviation(const Eigen::VectorXd& features) const {
  if (empty()) return std::sqrt(variance_ + noise_);
  std::call_once(*once_, [this] {
    if (inverse_.size() == 0) invert();
  });
  Eigen::VectorXd k(features_.rows());
  for_correlations(features, [&](Eigen::Index first, const Chunk& correlation) {
    k.segment(first, correlation.size()) = variance_ * correlation;
  });
  return std::sqrt(std::max(0.0, variance_ - k.dot(inverse_ * k)) + noise_);
}

}  // namespace moecast
