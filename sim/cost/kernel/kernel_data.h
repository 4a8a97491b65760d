#pragma once
#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "hwprofiles/kernel_samples.h"
#include "sim/cost/kernel/curve_grid.h"
#include "sim/cost/kernel/kernel_law.h"

namespace moecast {

/// The rows of one kernel as a fit needs them.
struct KernelData {
  using Terms = Eigen::Matrix<double, Eigen::Dynamic, KernelLaw::kMostTerms, Eigen::RowMajor>;
  Terms terms;                                   ///< rows x terms of the law
  Eigen::VectorXd log_seconds;                   ///< measured
  Eigen::MatrixXd coordinates;                   ///< rows x axes
  std::vector<IntervalStratum> strata;           ///< of every row
  Eigen::VectorXd machine;                       ///< size: ranks or nodes
  Eigen::VectorXd growth_half_width;             ///< of ln latency, each doubling of the machine
  std::vector<std::vector<std::size_t>> curves;  ///< row indices
  Eigen::MatrixXd features;                      ///< curves x features
  CurveGrid grid;

  [[nodiscard]] std::size_t rows() const { return static_cast<std::size_t>(log_seconds.size()); }
  /// Residuals of one curve at all nodes. @param log_mean  of every row.
  [[nodiscard]] Eigen::VectorXd residual_curve(std::size_t curve, const Eigen::VectorXd& log_mean) const;
  /// How far a curve's own nodes are from its measured positions.
  [[nodiscard]] Eigen::VectorXd gaps(std::size_t curve) const;
};

KernelData make_kernel_data(const KernelSamples& samples, const KernelLaw& law, RankLoadCache& loads);

/// Rows that are faster than the datasheet allows (5 % tolerance), or known defects of a source, by reason.
/// @return for each row an index into `reasons`, or -1 for a row that is kept.
struct RowFilter {
  std::vector<std::string> reasons;
  std::vector<int> reason;
};
RowFilter filter_rows(const KernelSamples& samples, const KernelLaw& law, RankLoadCache& loads);

/// Group of every curve: equal values in `columns`. Numbered in the order of the curves.
std::vector<int> curve_groups(const KernelSamples& samples, const std::vector<std::vector<std::size_t>>& curves,
                              const std::vector<std::string_view>& columns);

/// ln of the physics of every row.
Eigen::VectorXd log_means(const KernelData& data, const KernelLaw& law, const Eigen::VectorXd& coefficients);

struct MeanFitOptions {
  int most_rows = 1200;  ///< random rows of the fit
  int evaluations = 40;  ///< of the Jacobian
  std::uint64_t seed = 1;
  Eigen::VectorXd prior{};  ///< coefficients to stay near instead of the law's priors; empty: those
  double prior_width = 1;   ///< of the law's widths
};

/// Coefficients from the rows where `use` holds, held near the priors of the law, rounded to 1e-4.
/// @param start  empty: the priors.
Eigen::VectorXd fit_mean(const KernelData& data, const KernelLaw& law, const std::vector<bool>& use,
                         const Eigen::VectorXd& start, const MeanFitOptions& options = {});

}  // namespace moecast
