#pragma once
#include <memory>
#include <string>
#include <vector>

#include "hwprofiles/measurement.h"
#include "models/core/origin.h"
#include "models/core/units.h"

namespace moecast {

/// Latency of one kernel with a 90 % interval, and what it is made of.
struct KernelCost {
  Seconds latency;
  Seconds low;
  Seconds high;
  double memory_ratio = 0;   ///< share of the latency that is bytes over bandwidth
  double compute_ratio = 0;  ///< share that is arithmetic; the rest is the call itself
  Origin origin = Origin::assumed;
};

/// Calibrated cost of every kernel of one machine. Immutable after loading; safe to share between threads.
class CostModel {
 public:
  virtual ~CostModel() = default;
  /// @param rows  replaces shape.m and may be fractional (an expectation); 0 = shape.m.
  /// @throws InputError when nothing is known about (backend, kind, dtype, threads).
  [[nodiscard]] virtual KernelCost cost(const KernelPoint& point, double rows = 0) const = 0;
  /// Standard deviation of ln(latency) at a point: what adaptive profiling lowers.
  [[nodiscard]] virtual double uncertainty(const KernelPoint& point) const = 0;
  [[nodiscard]] virtual bool knows(OperatorKind kind, const std::string& backend, DType dtype, int threads) const = 0;
};

}  // namespace moecast
