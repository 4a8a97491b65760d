#include "sim/cost/kernel/curve_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace moecast {
namespace {

struct Between {
  int low = 0;
  double share = 0;  ///< of the node after `low`
};

Between between(const std::vector<double>& nodes, double at) {
  const auto above = std::upper_bound(nodes.begin(), nodes.end(), at);
  if (above == nodes.begin()) return {0, 0};
  const int low = static_cast<int>(above - nodes.begin()) - 1;
  if (above == nodes.end()) return {low, 0};
  const double from = nodes[static_cast<std::size_t>(low)];
  return {low, (at - from) / (*above - from)};
}

void add_line(CurveGrid::Place& place, const Between& at, int first, double weight) {
  const auto put = [&](int node, double share) {
    place.node[static_cast<std::size_t>(place.count)] = node;
    place.share[static_cast<std::size_t>(place.count++)] = share;
  };
  put(first + at.low, weight * (1 - at.share));
  if (at.share > 0) put(first + at.low + 1, weight * at.share);
}

CurveGrid::Place on_plane(const std::vector<std::vector<double>>& axes, const double* coordinates) {
  const Between x = between(axes[0], coordinates[0]);
  const Between y = between(axes[1], coordinates[1]);
  const int columns = static_cast<int>(axes[1].size());
  CurveGrid::Place place;
  add_line(place, y, x.low * columns, 1 - x.share);
  if (x.share > 0) add_line(place, y, (x.low + 1) * columns, x.share);
  return place;
}

double interpolate(const Eigen::VectorXd& x, const Eigen::VectorXd& y, double at) {
  const Eigen::Index last = x.size() - 1;
  if (at <= x(0)) return y(0);
  if (at >= x(last)) return y(last);
  const auto above = static_cast<Eigen::Index>(std::upper_bound(x.begin(), x.end(), at) - x.begin());
  const double share = (at - x(above - 1)) / (x(above) - x(above - 1));
  return y(above - 1) + share * (y(above) - y(above - 1));
}

}  // namespace

int CurveGrid::nodes() const {
  std::size_t count = plane ? 1 : 0;
  for (const auto& axis : axes) count = plane ? count * axis.size() : count + axis.size();
  return static_cast<int>(count);
}

int CurveGrid::own_nodes() const { return plane ? nodes() : static_cast<int>(axes.front().size()); }

CurveGrid::Place CurveGrid::place(const double* coordinates) const {
  if (plane) return on_plane(axes, coordinates);
  Place place;
  int first = 0;
  const double weight = 1 / static_cast<double>(axes.size());
  for (std::size_t a = 0; a < axes.size(); ++a) {
    add_line(place, between(axes[a], coordinates[a]), first, weight);
    first += static_cast<int>(axes[a].size());
  }
  return place;
}

CurveGrid::Place CurveGrid::own_place(const double* coordinates) const {
  if (plane) return on_plane(axes, coordinates);
  Place place;
  add_line(place, between(axes.front(), coordinates[0]), 0, 1);
  return place;
}

Eigen::VectorXd CurveGrid::resample(const Eigen::MatrixXd& coordinates, const Eigen::VectorXd& values) const {
  Eigen::VectorXd out(nodes());
  Eigen::Index node = 0;
  if (!plane) {
    for (std::size_t a = 0; a < axes.size(); ++a) {
      const Eigen::VectorXd x = coordinates.col(static_cast<Eigen::Index>(a));
      for (const double at : axes[a]) out(node++) = interpolate(x, values, at);
    }
    return out;
  }
  // A node that was not measured takes the value of the nearest one that was.
  for (const double x : axes[0]) {
    for (const double y : axes[1]) {
      Eigen::Index nearest = 0;
      ((coordinates.col(0).array() - x).square() + (coordinates.col(1).array() - y).square()).minCoeff(&nearest);
      out(node++) = values(nearest);
    }
  }
  return out;
}

Eigen::VectorXd CurveGrid::gaps(const Eigen::MatrixXd& coordinates) const {
  Eigen::VectorXd out(own_nodes());
  Eigen::Index node = 0;
  for (const double x : axes[0]) {
    const Eigen::ArrayXd along = (coordinates.col(0).array() - x).abs();
    if (!plane) {
      out(node++) = along.minCoeff();
      continue;
    }
    for (const double y : axes[1]) out(node++) = along.max((coordinates.col(1).array() - y).abs()).minCoeff();
  }
  return out;
}

}  // namespace moecast
