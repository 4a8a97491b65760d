#pragma once
#include <memory>
#include <string>
#include <vector>

#include "sim/cost/kernel/kernel_data.h"
#include "sim/cost/kernel/kernel_model.h"

namespace moecast {

/// Predictions of every row by a model that has not seen the row's group.
struct LeftOutRows {
  Eigen::VectorXd log_mean;  ///< physics alone
  Eigen::VectorXd log_predicted;
  Eigen::VectorXd sigma;        ///< unit of the scores
  Eigen::VectorXd log_nearest;  ///< baseline: the nearest measured curve at the same position
};

/// How a hold-out treats what all folds share.
enum class HoldOut {
  exact,  ///< every fold fits physics, outliers and noise anew
  fast    ///< physics anew from the common start; outliers and noise of the whole; for the scores of a calibration
};

/// @param groups  of every curve.
/// @param noise   variance of a curve.
LeftOutRows leave_groups_out(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups, double noise,
                             HoldOut how);

/// 90 % scores from left-out rows, pooled and by group: the wider of the two.
/// @param skip  a group that does not count; -1 for none.
ScoreInterval score_interval(const KernelData& data, const LeftOutRows& rows, const std::vector<int>& row_groups,
                             int skip);
/// Folds of a hold-out: groups beyond `most` share folds, always whole.
inline constexpr int kMostFolds = 20;
std::vector<int> merge_groups(const std::vector<int>& groups, int most);
std::vector<int> row_groups_of(const KernelData& data, const std::vector<int>& curve_groups);

/// ln of the latency that a curve has at the measured position nearest to `coordinates`: the baseline.
double nearest_log_seconds(const KernelData& data, std::size_t curve, const Eigen::RowVectorXd& coordinates);

/// Variance of a curve where left-out groups do not choose another.
inline constexpr double kUsualNoise = 0.15;
/// Curve variance that serves left-out groups best, of those that are tried.
double choose_noise(const KernelData& data, const KernelLaw& law, const std::vector<int>& groups);

/// Calibrates one kernel from its samples.
KernelModel fit_kernel(const KernelSamples& samples, const std::shared_ptr<const KernelLaw>& law, RankLoadCache& loads);

/// Physics and kriging of the curves where `use` holds, no scores.
KernelModel fit_kernel_part(const KernelData& data, const std::shared_ptr<const KernelLaw>& law,
                            const std::vector<bool>& use_curve, double noise);

}  // namespace moecast
