#pragma once
#include <Eigen/Core>
#include <memory>
#include <mutex>

namespace moecast {

/// Gaussian-process residual over features in log space: Matern 3/2, one length a feature.
///
/// Zero far from everything measured, with the variance of the prior: a prediction there falls back to the mean.
class Kriging {
 public:
  struct Options {
    Eigen::VectorXd prior_lengths;  ///< in feature units; also the start of the search
    double least_length = 1.0;      ///< below it one noisy round would be followed instead of smoothed
    double prior_variance = 0.02;
    double prior_noise = 0.0005;
    double winsorise_at = 3.0;  ///< left-out residuals are clipped at this many robust scales
    int winsorise_passes = 2;
  };

  Kriging() = default;
  /// @param features [points, features]; @param residuals [points], ln(measured / mean).
  Kriging(const Eigen::MatrixXd& features, const Eigen::VectorXd& residuals, const Options& options);
  /// Restores a stored model. Shapes as in the accessors; the inverse is rebuilt from lengths, variance and noise.
  Kriging(Eigen::MatrixXd features, Eigen::VectorXd weights, Eigen::VectorXd lengths, double variance, double noise);

  struct Evaluation {
    double mean = 0;
    double nearness = 0;  ///< largest correlation with a measured point, 0 (far) to 1
  };
  [[nodiscard]] Evaluation evaluate(const Eigen::Ref<const Eigen::VectorXd>& features) const;
  [[nodiscard]] double mean(const Eigen::Ref<const Eigen::VectorXd>& features) const { return evaluate(features).mean; }
  /// Standard deviation of the residual at a point, noise of one measurement included.
  [[nodiscard]] double deviation(const Eigen::VectorXd& features) const;

  [[nodiscard]] bool empty() const { return features_.rows() == 0; }
  [[nodiscard]] const Eigen::MatrixXd& features() const { return features_; }  ///< [points, features]
  [[nodiscard]] const Eigen::VectorXd& weights() const { return weights_; }    ///< [points]
  [[nodiscard]] const Eigen::VectorXd& lengths() const { return lengths_; }    ///< [features]
  [[nodiscard]] double variance() const { return variance_; }
  [[nodiscard]] double noise() const { return noise_; }

 private:
  /// Calls `consume(first, correlations)` for the correlations with all points, in blocks of the points in order.
  template <class Consume>
  void for_correlations(const Eigen::Ref<const Eigen::VectorXd>& features, const Consume& consume) const;
  void choose_lengths(const Eigen::VectorXd& residuals, const Options& options);
  void invert() const;
  void winsorise(Eigen::VectorXd& residuals, const Options& options) const;

  Eigen::MatrixXd features_;
  Eigen::VectorXd weights_;
  Eigen::VectorXd lengths_;
  double variance_ = 0;
  double noise_ = 0;
  Eigen::MatrixXd scaled_;           ///< [points, features], features over their lengths
  mutable Eigen::MatrixXd inverse_;  ///< built at construction from data, on first need after loading
  std::shared_ptr<std::once_flag> once_ = std::make_shared<std::once_flag>();
};

}  // namespace moecast
