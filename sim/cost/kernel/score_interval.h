#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace moecast {

inline constexpr int kKernelBands = 3;
/// Up to 16, 17 to 256, above (tokens, rows or sequences).
constexpr std::size_t kernel_band(double size) { return size <= 16 ? 0 : size <= 256 ? 1 : 2; }

/// Factors beside the band that intervals are kept by, each in a few levels that a law names.
inline constexpr std::size_t kIntervalFactors = 3;
inline constexpr std::size_t kIntervalLevels = 5;

/// Which bounds hold for a row.
struct IntervalStratum {
  std::size_t band = 0;
  std::array<std::uint8_t, kIntervalFactors> levels{};  ///< below kIntervalLevels
};

/// Scores (ln measured - ln predicted) / sigma that a 90 % interval spans: bounds by band, stretched by level.
struct ScoreInterval {
  using Stretch = std::array<std::array<double, kIntervalLevels>, kIntervalFactors>;
  static constexpr Stretch unstretched() {
    Stretch stretch{};
    for (auto& levels : stretch) levels.fill(1);
    return stretch;
  }

  std::array<double, kKernelBands> low{};   ///< below zero
  std::array<double, kKernelBands> high{};  ///< above zero
  Stretch stretch = unstretched();          ///< ratios; those of all factors multiply

  [[nodiscard]] double low_of(const IntervalStratum& stratum) const { return low[stratum.band] * stretch_of(stratum); }
  [[nodiscard]] double high_of(const IntervalStratum& stratum) const {
    return high[stratum.band] * stretch_of(stratum);
  }
  [[nodiscard]] double stretch_of(const IntervalStratum& stratum) const {
    double product = 1;
    for (std::size_t factor = 0; factor < kIntervalFactors; ++factor)
      product *= stretch[factor][stratum.levels[factor]];
    return product;
  }
  void widen(double ratio) {
    for (double& score : low) score *= ratio;
    for (double& score : high) score *= ratio;
  }
};

}  // namespace moecast
