#pragma once
#include <memory>
#include <string>
#include <vector>

#include "sim/cost/kernel/kernel_data.h"
#include "sim/cost/kernel/kernel_model.h"

namespace moecast {

/// Predictions of every row by a model that has not seen the row's group.
struct LeftOutRows {
  Eigen::VectorXd log_predicted;
  Eigen::VectorXd sigma;        ///< unit of the scores
  Eigen::VectorXd log_nearest;  ///< baseline: the nearest measured curve at the same position
};

/// @param groups  of every curve.
/// @param noise   variance of a curve.
/// Every fold fits physics, outliers and noise anew.
LeftOutRows leave_groups_out(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups,
                             double noise);

/// Physics and kriging of all curves, before scores.
struct WholeFit {
  Eigen::VectorXd coefficients;
  Eigen::VectorXd log_mean;    ///< of every row
  Eigen::MatrixXd residuals;   ///< curves x nodes
  Eigen::MatrixXd covariance;  ///< of the curves
  CurveFit curves;
};
WholeFit fit_whole(const KernelData& data, const KernelLaw& law);
/// The same as leave_groups_out in a tenth of the time: physics anew from the common start, outliers and noise of the
/// whole. For the scores of a calibration.
LeftOutRows leave_groups_out_fast(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups,
                                  const WholeFit& whole);

/// Folds of a hold-out: groups beyond `most` share folds, always whole.
inline constexpr int kMostFolds = 20;
std::vector<int> merge_groups(const std::vector<int>& groups, int most);
std::vector<int> row_groups_of(const KernelData& data, const std::vector<int>& curve_groups);

/// ln of the latency that a curve has at the measured position nearest to `coordinates`: the baseline.
double nearest_log_seconds(const KernelData& data, std::size_t curve, const Eigen::RowVectorXd& coordinates);

/// Curve variance that serves left-out groups best.
/// @param covariance, residuals  of the curves.
/// @param usual  of the law: larger ones have to serve better by 2 %.
double choose_noise(const Eigen::MatrixXd& covariance, const Eigen::MatrixXd& residuals, const std::vector<int>& groups,
                    double usual);

/// Calibrates one kernel from its samples.
KernelModel fit_kernel(const KernelSamples& samples, const std::shared_ptr<const KernelLaw>& law, RankLoadCache& loads);

}  // namespace moecast
