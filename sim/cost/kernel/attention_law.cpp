#include <array>
#include <cmath>

#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/overlap.h"

namespace moecast {
namespace {

enum Coef { kLaunch, kBandwidth, kPeak, kOverlap, kPerHead, kPerKey, kPerSequence, kCoefCount };
constexpr double kLnMs = 6.907755279;
using Coefficients = std::array<KernelLaw::Coefficient, kCoefCount>;

constexpr Coefficients coefficients_of(double peak) {
  return {{
      {"launch", "seconds of the launch of one call", -4.6 - kLnMs, 1.0},
      {"bandwidth", "share of the datasheet's memory bandwidth", -0.3, 0.5},
      {"peak", "share of the datasheet's arithmetic peak", peak, 1.0},
      {"overlap", "q - 1 of (memory^q + compute^q)^(1/q)", 0.5, 0.7},
      {"per_head", "seconds an element of the heads of a batch", -16 - kLnMs, 2.0},
      {"per_key", "seconds a key that one block walks over", -10 - kLnMs, 2.0},
      {"per_sequence", "seconds a sequence", -10 - kLnMs, 2.0},
  }};
}
constexpr Coefficients kPrefill = coefficients_of(-0.6);
constexpr Coefficients kDecode = coefficients_of(-2.0);

constexpr std::array<std::string_view, 5> kFeatures{"log2_heads", "log2_kv_heads", "log2_heads_per_kv_head",
                                                    "log2_head_dim", "log2_window"};
enum Term { kBytes, kFlops, kParallel, kWidth, kKeys, kBatch, kTermCount };

/// Latent attention: a query head has 128 + 64 dimensions, a value head 128; the cache holds 512 + 64 a token.
constexpr double kQueryDim = 192;
constexpr double kValueDim = 128;
constexpr double kLatent = 512;
constexpr double kLatentWithRope = 576;
/// Blocks beyond which the walk over the keys is spread no further.
constexpr double kMostSplit = 64;

/// Attention over a KV cache: grouped or latent, prefill or decode.
class AttentionLaw final : public KernelLaw {
 public:
  AttentionLaw(const KernelKey& key, const DeviceLimits& device)
      : device_(device),
        prefill_(key.layout.starts_with("context")),
        latent_(key.layout.ends_with("_mla")),
        cache_bytes_(key.dtype.ends_with("+fp8") ? 1 : 2) {
    kernel_.terms = {{1.0, {{0, 2.0}, {1, 2.0}, {2, 2.0}, {3, 1.0}, {4, 3.0}}}};
  }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override { return prefill_ ? kPrefill : kDecode; }

  void derive(const KernelRow& row, RankLoadCache& /*loads*/, double* t) const override {
    const double batch = row.values[0];
    const double length = prefill_ ? row.values[1] : row.values[1] + row.values[2];
    const double heads = row.values[3];
    t[kBatch] = batch;
    if (latent_) return derive_latent(batch, length, heads, t);
    const double kv_heads = kv_heads_of(row.values);
    const double dim = row.values[5];
    const double window = row.values[6];
    const double seen = window > 0 ? std::min(length, window) : length;
    t[kKeys] = seen;
    t[kWidth] = dim;
    if (prefill_) {
      const double pairs = window > 0 ? length * seen - seen * seen / 2 : length * length / 2;
      t[kFlops] = 4 * batch * heads * dim * pairs;
      t[kBytes] = batch * length * dim * (4 * heads + 2 * kv_heads * (2 + cache_bytes_));
      t[kParallel] = batch * heads;
    } else {
      t[kFlops] = 4 * batch * heads * dim * seen;
      t[kBytes] = batch * dim * (2 * kv_heads * seen * cache_bytes_ + 4 * heads);
      t[kParallel] = batch * kv_heads;
    }
  }

  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double memory = t[kBytes] / (device_.bandwidth * p[kBandwidth]);
    const double compute = t[kFlops] / (device_.peak_bf16 * p[kPeak]);
    const double q = 1 + p[kOverlap];
    return std::log(p[kLaunch] + overlapped_pair(q, memory, compute) + p[kPerHead] * t[kParallel] * t[kWidth] +
                    p[kPerKey] * t[kKeys] / std::min(t[kParallel], kMostSplit) + p[kPerSequence] * t[kBatch]);
  }
  [[nodiscard]] double least_seconds(const double* t) const override {
    return std::max(t[kFlops] / (2 * device_.peak_bf16),  // fp8 caches may be multiplied in fp8
                    std::max(0.0, t[kBytes] - device_.cache) / device_.bandwidth);
  }
  [[nodiscard]] double roofline_seconds(const double* t) const override {
    return std::max(t[kFlops] / device_.peak_bf16, t[kBytes] / device_.bandwidth);
  }

  [[nodiscard]] std::span<const std::string_view> features() const override { return kFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    const double kv_heads = latent_ ? 1 : kv_heads_of(v);
    out[0] = std::log2(v[3]);
    out[1] = std::log2(kv_heads);
    out[2] = out[0] - out[1];
    out[3] = latent_ ? 0 : std::log2(v[5]);
    out[4] = latent_ ? 0 : std::log2(1 + v[6]);
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }
  [[nodiscard]] double usual_noise() const override { return 0.05; }
  [[nodiscard]] int axes() const override { return 2; }
  [[nodiscard]] bool plane() const override { return true; }
  void coordinates(std::span<const double> v, double* out) const override {
    out[0] = std::log2(v[0]);
    out[1] = std::log2(prefill_ ? v[1] : v[1] + v[2]);
  }
  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name != "shape") return {};
    if (latent_) return {"num_heads"};
    return {"num_heads", "num_key_value_heads", "head_dim"};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override { return prefill_ ? v[0] * v[1] : v[0]; }

 private:
  static double kv_heads_of(std::span<const double> v) { return v[4] > 0 ? v[4] : v[3]; }

  void derive_latent(double batch, double length, double heads, double* t) const {
    t[kKeys] = length;
    if (prefill_) {
      t[kWidth] = kQueryDim;
      t[kFlops] = batch * heads * length * length * (kQueryDim + kValueDim);
      t[kBytes] = batch * length * (heads * 2 * (2 * kQueryDim + 2 * kValueDim) + kLatentWithRope * cache_bytes_);
      t[kParallel] = batch * heads;
    } else {
      t[kWidth] = kLatentWithRope;
      t[kFlops] = 2 * batch * heads * length * (kLatentWithRope + kLatent);
      t[kBytes] = batch * (length * kLatentWithRope * cache_bytes_ + heads * 2 * (kLatentWithRope + kLatent));
      t[kParallel] = batch;
    }
  }

  DeviceLimits device_;
  bool prefill_, latent_;
  double cache_bytes_;
  CurveKernel kernel_;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_attention_law(const KernelKey& key, const DeviceLimits& device,
                                                    KernelFormat /*format*/) {
  return std::make_shared<AttentionLaw>(key, device);
}

}  // namespace moecast
