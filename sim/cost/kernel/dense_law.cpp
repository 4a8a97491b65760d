#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/overlap.h"

namespace moecast {
namespace {

enum Coef { kLaunch, kBandwidth, kPeak, kOverlap, kRowTile, kPerDepth, kCacheGain, kColumnTile, kCoefCount };
constexpr double kLnMs = 6.907755279;
constexpr std::array<KernelLaw::Coefficient, kCoefCount> kCoefficients{{
    {"launch", "seconds of the launch of one call", -5 - kLnMs, 1.0},
    {"bandwidth", "share of the datasheet's memory bandwidth", -0.2, 0.4},
    {"peak", "share of the datasheet's arithmetic peak", -0.4, 0.5},
    {"overlap", "q - 1 of (memory^q + compute^q)^(1/q)", 0.5, 0.7},
    {"row_tile", "rows that m is rounded up to, smoothly", 3.0, 1.0},
    {"per_depth", "seconds a column of k", -14 - kLnMs, 1.5},
    {"cache_gain", "odds of the share of weights that the last-level cache serves", -1.0, 1.0},
    {"column_tile", "columns that n is rounded up to, smoothly", 3.0, 1.0},
}};

constexpr std::array<std::string_view, 4> kFeatures{"log2_n", "log2_k", "log2_nk", "ragged"};

/// Doublings that a width lacks to be a multiple of 256, as those of tables are; narrow ones are what they are.
double ragged(double width) {
  constexpr std::int64_t kWhole = 256;
  constexpr double kNarrow = 128;
  if (width <= kNarrow) return 0;
  return std::log2(static_cast<double>(kWhole) / static_cast<double>(std::gcd(std::llround(width), kWhole)));
}

enum Term { kM, kN, kK, kWave, kTermCount };

/// Length of the ragged feature: with it intervals of a model that has seen whole widths alone cover 89 % of ragged
/// ones, measured on an H200 and an H100, which run on other tiles; without it 75 to 78 %.
constexpr double kRaggedLength = 5.4;

/// Dense GEMM: m x k by k x n, weights n x k.
class DenseLaw final : public KernelLaw {
 public:
  DenseLaw(const DeviceLimits& device, KernelFormat format) : device_(device), format_(format) {
    kernel_.terms = {{1.0, {{0, 1.5}, {1, 1.5}, {2, 3.0}, {3, kRaggedLength}}}};
  }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override { return kCoefficients; }

  void derive(const KernelRow& row, RankLoadCache& /*loads*/, double* t) const override {
    t[kM] = row.values[0];
    t[kN] = row.values[1];
    t[kK] = row.values[2];
    // Waves of 128 x 128 tiles over the multiprocessors: the last one is seldom full.
    const double tiles = std::ceil(t[kM] / 128) * std::ceil(t[kN] / 128) / device_.multiprocessors;
    const double lost = std::min(std::ceil(tiles) / tiles, 4.0) - 1;
    t[kWave] = 1 + (tiles > 0.9 ? 0.5 * lost : 0);
  }

  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double weights = t[kN] * t[kK] * format_.weight_bytes;
    const double fill = weights / device_.cache;
    const double resident = 1 / (1 + fill * fill * fill * fill);
    const double memory = (weights * (1 - resident * p[kCacheGain] / (1 + p[kCacheGain])) + activations(t)) /
                          (device_.bandwidth * p[kBandwidth]);
    const double rows = std::sqrt(t[kM] * t[kM] + p[kRowTile] * p[kRowTile]);
    const double columns = std::sqrt(t[kN] * t[kN] + p[kColumnTile] * p[kColumnTile]);
    const double compute = 2 * rows * columns * t[kK] / (peak() * p[kPeak]) * t[kWave];
    const double q = 1 + p[kOverlap];
    return std::log(p[kLaunch] + overlapped_pair(q, memory, compute) + p[kPerDepth] * t[kK]);
  }
  [[nodiscard]] double least_seconds(const double* t) const override {
    const double bytes = t[kN] * t[kK] * format_.weight_bytes - device_.cache;
    return std::max(2 * t[kM] * t[kN] * t[kK] / peak(), std::max(0.0, bytes) / device_.bandwidth);
  }
  [[nodiscard]] double roofline_seconds(const double* t) const override {
    const double bytes = t[kN] * t[kK] * format_.weight_bytes + activations(t);
    return std::max(2 * t[kM] * t[kN] * t[kK] / peak(), bytes / device_.bandwidth);
  }

  [[nodiscard]] std::span<const std::string_view> features() const override { return kFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    out[0] = std::log2(v[1]);
    out[1] = std::log2(v[2]);
    out[2] = out[0] + out[1];
    out[3] = ragged(v[1]) + ragged(v[2]);
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }
  [[nodiscard]] double usual_noise() const override { return 0.05; }
  [[nodiscard]] int axes() const override { return 1; }
  void coordinates(std::span<const double> v, double* out) const override { out[0] = std::log2(v[0]); }
  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name == "shape") return {"n", "k"};
    if (name == "n") return {"n"};
    if (name == "k") return {"k"};
    return {};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override { return v[0]; }

 private:
  [[nodiscard]] double peak() const { return device_.peak_bf16 * format_.rate; }
  static double activations(const double* t) { return t[kM] * (t[kN] + t[kK]) * 2; }
  DeviceLimits device_;
  KernelFormat format_;
  CurveKernel kernel_;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_dense_law(const KernelKey& /*key*/, const DeviceLimits& device,
                                                KernelFormat format) {
  return std::make_shared<DenseLaw>(device, format);
}

}  // namespace moecast
