#pragma once
#include <algorithm>
#include <cmath>
#include <span>

namespace moecast {

/// Choosing k distinct experts one after another by weight is a race of exponential clocks with those rates: the first
/// k to ring are chosen.

/// The time at which so many clocks are expected to have rung. @param count  at most as many as have a rate.
double time_of_expected_choice(std::span<const double> rates, double count);

/// Times at which an integral over the race is sampled: equal steps of ln(time), so that rates of any ratio are seen.
class RaceTimes {
 public:
  /// @param largest_rate  of a clock, or of some together, above 0.
  RaceTimes(double largest_rate, int top_k)
      : step_(std::min(kStep, 1 / std::sqrt(static_cast<double>(top_k)))),
        growth_(std::exp(step_)),
        now_(kFirst / largest_rate) {}
  [[nodiscard]] double now() const { return now_; }
  /// What a value at this time weighs in the integral.
  [[nodiscard]] double weight() const { return now_ * step_; }
  /// What the value at the first time weighs for all times before it.
  [[nodiscard]] double weight_before() const { return weight() / (growth_ - 1); }
  void advance() { now_ *= growth_; }
  /// @param scale  when k are expected to have rung. @param added  most of what this time gave any probability.
  [[nodiscard]] bool is_last(double scale, double added) const {
    return (now_ > scale && added < kOver) || now_ > kLast;
  }

 private:
  static constexpr double kStep = 0.125;  ///< the error of smooth integrands falls as exp(-const / step): below 1e-9
  static constexpr double kFirst = 1e-3;  ///< of the mean time of the fastest clock
  static constexpr double kOver = 1e-10;  ///< of a probability
  static constexpr double kLast = 1e300;  ///< clocks that ring later than doubles count
  double step_, growth_, now_;
};

}  // namespace moecast
