#pragma once
#include <array>
#include <optional>
#include <vector>

#include "hwprofiles/measurement.h"
#include "models/plan/deployment.h"
#include "models/plan/operator.h"

namespace moecast {

/// The two trivial predictors that every model of ours stands beside, made from the same samples.
class Baselines {
 public:
  explicit Baselines(const std::vector<Measurement>& measurements);
  /// Sum over the GEMMs of a graph of 2 m n k / P (1 + m0/m) (1 + k0/k) (1 + n0/n): a FLOP rate with its efficiency at
  /// small shapes, no bytes. nullopt when the profile has no GEMM of the deployment.
  [[nodiscard]] std::optional<double> roofline_s(const OperatorGraph& graph, const Deployment& deployment) const;
  /// Sum over the GEMMs of the nearest measured point in log2 (m, n, k, footprint), scaled by m n k.
  [[nodiscard]] std::optional<double> nearest_s(const OperatorGraph& graph, const Deployment& deployment) const;

 private:
  struct Group {
    std::vector<KernelPoint> points;
    std::vector<double> seconds;
    std::array<double, 4> rate{};  ///< ln of P, m0, k0, n0
  };
  [[nodiscard]] const Group* find(const Operator& op, const Deployment& deployment) const;
  template <class Time>
  std::optional<double> sum(const OperatorGraph& graph, const Deployment& deployment, Time time) const;
  std::vector<Group> groups_;
};

}  // namespace moecast
