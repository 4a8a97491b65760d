#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace moecast {

/// The power law of published kernel tables (aiconfigurator's): an expert's weight has the density x^-alpha on
/// [1, 0.8 T] where T k > E, else on [0.01, 2].
class PowerLaw {
 public:
  /// @param alpha  above 0.
  PowerLaw(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, double alpha);

  /// @param uniform  in [0, 1).
  [[nodiscard]] double weight(double uniform) const;
  /// Rows in proportion to the weights, rounded, at most one a token: their sum misses tokens x top_k by a few.
  void rows(std::span<const double> weights, std::span<std::int64_t> rows) const;

 private:
  std::int64_t tokens_, all_rows_;
  double exponent_, from_, width_;
};

}  // namespace moecast
