#pragma once
#include <Eigen/Core>
#include <array>
#include <span>
#include <vector>

namespace moecast {

/// Where on a curve residuals are kept.
///
/// Lines: a residual is the mean over the axes of one linear interpolation each. Plane: two axes, bilinear. Beyond the
/// ends it is constant.
struct CurveGrid {
  static constexpr int kMostAxes = 2;
  static constexpr int kMostNodes = 512;
  std::vector<std::vector<double>> axes;  ///< ascending nodes
  bool plane = false;

  /// Up to four nodes and their shares (they sum to 1).
  struct Place {
    int count = 0;
    std::array<int, 4> node{};
    std::array<double, 4> share{};
  };

  [[nodiscard]] int nodes() const;
  /// Nodes at which measured values are kept as they are: the first axis of lines, all of a plane.
  [[nodiscard]] int own_nodes() const;
  [[nodiscard]] Place place(const double* coordinates) const;
  /// The same on the nodes of `own_nodes`.
  [[nodiscard]] Place own_place(const double* coordinates) const;
  /// Values at all nodes from measured points of one curve.
  /// @param coordinates  points x axes, at least one, ascending along every axis of lines.
  [[nodiscard]] Eigen::VectorXd resample(const Eigen::MatrixXd& coordinates, const Eigen::VectorXd& values) const;
  /// How far each of `own_nodes` is from the nearest measured point of one curve, in units of the axes.
  [[nodiscard]] Eigen::VectorXd gaps(const Eigen::MatrixXd& coordinates) const;
};

}  // namespace moecast
