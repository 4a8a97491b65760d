#pragma once
#include <array>
#include <string>

#include "hwprofiles/profile.h"
#include "sim/step/step_operators.h"

namespace moecast {

/// How a step is launched: one graph that was captured whole (decode), pieces of captured graphs, or kernel by kernel.
enum class StepLaunch { graph, piecewise, eager };

/// What the law of a step needs to know of it.
struct StepTerms {
  double kernels_s = 0;  ///< sum over operators
  double tokens = 0;     ///< new ones of this rank, not padded
  StepLaunch launch = StepLaunch::graph;
  bool after_idle = false;
};

struct StepCost {
  double seconds = 0;
  double host_s = 0;  ///< part that the host spends before it can launch the next step
  bool host_bound = false;
  double waits_s = 0;  ///< of the device, for a host that has not launched yet
  double other_s = 0;  ///< kernels of no table
  double elementwise_s = 0;
};

/// Half widths of 90 % intervals of ln seconds, of the parts of a step each by itself.
struct StepHalfWidths {
  StepTimes kernels{};
  double other = 0;
  double elementwise = 0;
  double host = 0;
};

/// Steps of one model on one deployment of one machine and engine. Immutable; safe to share.
///
/// decode = max(kernels + other, host). With prefill: prepare + max(kernels + other + gaps + elementwise, launch).
class StepModel {
 public:
  StepModel(StepOperators operators, EngineSpec engine, Deployment deployment, const DeviceLimits& device);

  [[nodiscard]] const StepOperators& operators() const { return operators_; }
  [[nodiscard]] const EngineSpec& engine() const { return engine_; }
  [[nodiscard]] const Deployment& deployment() const { return deployment_; }

  [[nodiscard]] StepTimes times(const StepShape& shape) const;
  /// The trivial predictor: each operator's bytes at 0.7 of the bandwidth or its operations at half of the bf16 peak,
  /// whichever takes longer; nothing for launches, collectives and the host.
  [[nodiscard]] double roofline_s(const StepShape& shape) const;
  /// Seconds by which operators of physics alone may be off together, 90 %: times their spread.
  [[nodiscard]] double assumed_s(const StepShape& shape) const;
  [[nodiscard]] StepLaunch launch_of(double tokens, bool prefill) const;
  /// The same where nobody asks for eager launches.
  [[nodiscard]] StepLaunch usual_launch_of(double tokens, bool prefill) const;
  /// @param host  instead of the engine's own: fits.
  [[nodiscard]] StepCost cost(const StepTerms& terms, const EngineHost& host) const;
  [[nodiscard]] StepCost cost(const StepTerms& terms) const { return cost(terms, engine_.host); }
  /// Standard deviation of ln(step) that is to be expected: kernels of a kind err together, kinds in part.
  [[nodiscard]] double sigma(const StepTimes& times, const StepCost& cost, StepLaunch launch) const;
  /// Half width of a 90 % interval of ln(step).
  [[nodiscard]] double half_width(const StepTimes& times, const StepCost& cost, StepLaunch launch) const {
    return sigma(times, cost, launch) *
           (launch == StepLaunch::graph ? engine_.decode_interval : engine_.prefill_interval);
  }
  [[nodiscard]] StepHalfWidths half_widths(StepLaunch launch) const;
  /// Rows of a decode step with so many tokens a rank; with prefill the same where pieces of graphs are replayed.
  [[nodiscard]] double padded(double tokens) const { return deployment_.eager ? tokens : engine_.padded_rows(tokens); }

 private:
  StepOperators operators_;
  EngineSpec engine_;
  Deployment deployment_;
  DeviceLimits device_;
};

double sum(const StepTimes& times);

/// Half width of a 90 % interval of ln seconds of a kind of kernels, as they usually err.
double usual_half_width(StepGroup group);

}  // namespace moecast
