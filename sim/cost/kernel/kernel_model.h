#pragma once
#include <Eigen/Core>
#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/core/origin.h"
#include "sim/accuracy/accuracy.h"
#include "sim/cost/kernel/curve_grid.h"
#include "sim/cost/kernel/kernel_law.h"

namespace moecast {

/// A row as a model saw it that had not seen the row's group.
struct LeftOutScore {
  double log_measured = 0;
  double log_predicted = 0;
  double sigma = 1;  ///< unit of the score
  IntervalStratum stratum{};
  int group = 0;
  MachineGrowth growth{};  ///< what its interval gains beyond the machines that the row's model has seen
  [[nodiscard]] double score() const { return (log_measured - log_predicted) / sigma; }
};

/// What a kernel has learned from its curves.
struct KernelArrays {
  Eigen::MatrixXf features;  ///< curves x features
  Eigen::MatrixXf weights;   ///< curves x nodes; empty: too few curves, physics alone
  /// curves x own nodes: what was measured at a curve beyond what the weights say there.
  Eigen::MatrixXf own;
  Eigen::MatrixXf gaps;             ///< curves x own nodes: doublings to the nearest position that was measured
  Eigen::MatrixXf landmark_factor;  ///< inverse of the Cholesky factor of the landmarks' covariance with noise, lower
  Eigen::RowVectorXf least, most;   ///< of each feature; set by `bound`

  void bound() {
    if (features.rows() == 0) return;
    least = features.colwise().minCoeff();
    most = features.colwise().maxCoeff();
  }
};

/// Arrays that are there, or that are read when they are first asked for. Safe to share between threads.
class LazyArrays {
 public:
  explicit LazyArrays(KernelArrays arrays) : arrays_(std::move(arrays)) { arrays_.bound(); }
  explicit LazyArrays(std::function<KernelArrays()> read) : read_(std::move(read)) {}
  /// @throws InputError when the file that they come from is damaged.
  [[nodiscard]] const KernelArrays& get() const {
    std::call_once(once_, [this] {
      if (!read_) return;
      arrays_ = read_();
      arrays_.bound();
      read_ = nullptr;
    });
    return arrays_;
  }

 private:
  mutable std::once_flag once_;
  mutable KernelArrays arrays_;
  mutable std::function<KernelArrays()> read_;
};

/// One calibrated kernel: physics, what neighbours teach, how sure.
struct KernelModel {
  KernelKey key;
  std::shared_ptr<const KernelLaw> law;
  Eigen::VectorXd coefficients;
  CurveGrid grid;
  std::shared_ptr<const LazyArrays> lazy;
  /// Curves that stand for all in the variance of a prediction: far from all of them is far from what was measured.
  std::vector<int> landmarks;
  ScoreInterval scores;
  double noise = 0;  ///< variance of a curve that left-out shapes chose
  int shapes = 0;
  int rows = 0;
  double largest_position = 0;           ///< on the first axis, above which the residual is a constant
  double largest_machine = 1;            ///< nodes or ranks that were measured, at most
  std::optional<ErrorSummary> left_out;  ///< whole shapes left out; nullopt for a single shape

  std::vector<LeftOutScore> left_out_scores;  ///< until intervals are pooled; not stored
  std::vector<std::string> left_out_groups;   ///< names of their groups

  /// Of the last curves, which were measured at few positions: what is left of the interval there.
  std::vector<double> short_curve_shares;
  bool inherited = false;  ///< curves are those of another machine or kernel: none is measured here

  [[nodiscard]] const KernelArrays& arrays() const { return lazy->get(); }
};

/// Variance of the score that does not come from distance.
inline constexpr double kVarianceFloor = 0.02;

/// A configuration (all but the position on its curve), ready for many token counts. Plain arrays, no heap: copy it
/// into a hot loop.
class CompiledKernel {
 public:
  struct Answer {
    double log_seconds = 0;
    double log_low = 0;
    double log_high = 0;
    Origin origin = Origin::assumed;
  };

  /// Scratch of `compile`, one a thread; grows once.
  struct Workspace {
    Eigen::VectorXf covariance;
    Eigen::VectorXf near;
    Eigen::ArrayXf distance;
  };

  CompiledKernel() = default;
  /// @param row  a row of the layout; its position columns do not matter.
  CompiledKernel(const KernelModel& model, std::span<const double> row, Workspace& workspace);

  /// @param row   the same configuration at any position. No allocation unless `loads` has to compute a routing law.
  [[nodiscard]] Answer at(const KernelRow& row, RankLoadCache& loads) const;
  /// sqrt(variance + floor): the unit of the scores.
  [[nodiscard]] double sigma() const { return sigma_; }
  /// Whether this very configuration was measured, at some positions at least.
  [[nodiscard]] bool measured() const { return own_; }

 private:
  const KernelModel* model_ = nullptr;
  bool kriged_ = false;
  std::array<double, KernelLaw::kMostCoefficients> prepared_{};
  std::array<float, CurveGrid::kMostNodes> residual_{};
  double sigma_ = 1;
  bool own_ = false;        ///< the configuration itself was measured
  double outside_ = 0;      ///< lengths of the kriging's kernel outside of the range of what was measured
  Eigen::Index curve_ = 0;  ///< its curve
  double own_share_ =
      0;  ///< of the interval that is left, where it was measured at few positions only; 0 = whole curve
};

}  // namespace moecast
