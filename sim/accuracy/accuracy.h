#pragma once
#include <optional>
#include <string>
#include <vector>

namespace moecast {

/// One prediction beside what was measured, seconds.
struct Outcome {
  double predicted_s = 0;
  double low_s = 0;
  double high_s = 0;
  double measured_s = 0;
  std::optional<double> roofline_s;   ///< baseline: floating-point operations at the rate of the profile
  std::optional<double> nearest_s;    ///< baseline: nearest measured point scaled by operations
  std::optional<double> rerun_ratio;  ///< |a / b - 1| of two independent halves of the measurement
};

/// The one definition of error: |predicted - measured| / measured. All values are ratios.
struct ErrorSummary {
  int n = 0;
  double median_ape = 0;
  double mape = 0;
  double p90_ape = 0;
  double within_10_ratio = 0;
  std::optional<double> kendall_tau;  ///< of latencies; unknown for one outcome, or where all are equal
  double coverage_90_ratio = 0;       ///< share of measured values inside their interval
  double bias = 0;                    ///< median of predicted / measured - 1
  std::optional<double> roofline_mape;
  std::optional<double> nearest_mape;
  std::optional<double> noise_mape;  ///< mean rerun difference
  std::optional<double> noise_p90;
};

/// nullopt for no outcomes.
std::optional<ErrorSummary> summarise_errors(const std::vector<Outcome>& outcomes);

}  // namespace moecast
