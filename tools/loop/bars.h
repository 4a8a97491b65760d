#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace moecast {

/// A bar that the noise of the machine hides is neither passed nor missed.
enum class Verdict { passed, missed, undecided };

std::string_view to_string(Verdict verdict);
/// missed over undecided over passed.
Verdict worse(Verdict a, Verdict b);

/// Highest allowed mean error of one stratum by tokens of a layer, and of all its cases. Ratios.
struct Bars {
  std::optional<double> few;   ///< T <= 16
  std::optional<double> some;  ///< 17 to 256
  std::optional<double> many;  ///< above 256
  double all = 0;
  double p90_all = 0;
};

/// Bars of a stratum, nullopt where none is promised (Eigen, ...).
std::optional<Bars> bars_of(const std::string& stratum);

/// @param error  mean (or p90) of |predicted - measured| / measured.
/// @param noise  the same statistic between two halves of the measurement's rounds, nullopt where nobody looked.
/// Passed at max(bar, 1.5 noise); undecided when the noise is above 10 % or unknown.
Verdict judge_error(double error, double bar, std::optional<double> noise);

/// 90 % intervals must contain 86 to 94 %: undecided where so few cases cannot tell.
Verdict judge_coverage(int covered, int cases);

/// Beats both trivial baselines: at most half the roofline's mean error, and below the nearest measured point's.
/// The noise is taken off as in judge_error.
Verdict judge_baselines(double error, double roofline, double nearest, std::optional<double> noise);

/// Are latencies in the right order? Kendall's tau must be at least `least_tau()`. Too few cases say nothing:
/// undecided, and so is an unknown tau (all latencies equal).
Verdict judge_tau(std::optional<double> tau, int cases);
double least_tau();

}  // namespace moecast
