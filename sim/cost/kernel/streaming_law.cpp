#include <array>
#include <cmath>

#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/overlap.h"

namespace moecast {
namespace {

enum Coef { kLaunch, kBandwidth, kPeak, kOverlap, kPerStep, kPerSequence, kCacheGain, kCoefCount };
constexpr double kLnMs = 6.907755279;
constexpr std::array<KernelLaw::Coefficient, kCoefCount> kCoefficients{{
    {"launch", "seconds of the launch of one call", -6.0 - kLnMs, 1.0},
    {"bandwidth", "share of the datasheet's memory bandwidth", -0.4, 0.6},
    {"peak", "share of the datasheet's arithmetic peak", -1.5, 1.0},
    {"overlap", "q - 1 of (memory^q + compute^q)^(1/q)", 0.5, 0.7},
    {"per_step", "seconds a step of the recurrence along a sequence", -12 - kLnMs, 2.0},
    {"per_sequence", "seconds a sequence, head or expert", -12 - kLnMs, 2.0},
    {"cache_gain", "odds of the share of bytes that the last-level cache serves", -1.0, 1.0},
}};
constexpr std::array<std::string_view, 3> kFeatures{"ln_width", "ln_heads", "ln_ratio"};
enum Term { kBytes, kFlops, kSteps, kSequences, kTermCount };
enum class What { quantise, scale, bmm, conv, delta, experts };

/// Rank of the latent projection and width of a head in latent attention.
constexpr double kLatent = 512;
constexpr double kHead = 128;
/// Steps that the chunked form of the delta rule takes at once.
constexpr double kChunk = 64;

/// Kernels whose time is their bytes, or a recurrence: quantisation, batched projections, convolution, delta rule.
class StreamingLaw final : public KernelLaw {
 public:
  StreamingLaw(const KernelKey& key, const DeviceLimits& device, KernelFormat format)
      : device_(device), format_(format), generation_(key.kernel.ends_with("generation")) {
    if (key.layout == "mla_bmm") what_ = What::bmm;
    if (key.layout == "scale_matrix") what_ = What::quantise;
    if (key.layout == "computescale") what_ = What::scale;
    if (key.layout == "moe_activated_experts") what_ = What::experts;
    if (key.layout == "gdn") what_ = key.kernel.find("conv1d") != std::string::npos ? What::conv : What::delta;
    kernel_.terms = {{1.0, {{0, 1.5}, {1, 1.5}, {2, 1.5}}}};
  }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override { return kCoefficients; }

  void derive(const KernelRow& row, RankLoadCache& /*loads*/, double* t) const override {
    const std::span<const double> v = row.values;
    t[kFlops] = 0;
    t[kSteps] = 0;
    t[kSequences] = 0;
    switch (what_) {
      case What::quantise:
        t[kBytes] = v[0] * v[1] * 3;  // bf16 in, fp8 out
        break;
      case What::scale: t[kBytes] = v[0] * v[1] * 2; break;
      case What::bmm:
        t[kBytes] = v[1] * kHead * kLatent * format_.weight_bytes + v[0] * v[1] * 2 * (kHead + kLatent);
        t[kFlops] = 2 * v[0] * v[1] * kHead * kLatent;
        t[kSequences] = v[1];
        break;
      case What::experts:
        // The table does not say the shape: an expert of 10 MB and 37 M weights' worth of arithmetic a token are units
        // that the coefficients scale.
        t[kBytes] = v[1] * 1e7;
        t[kFlops] = v[0] * 7.5e7;
        t[kSteps] = v[0];
        t[kSequences] = v[1];
        break;
      case What::conv:
      case What::delta: derive_gdn(v, t);
    }
  }

  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double fill = t[kBytes] / device_.cache;
    const double resident = 1 / (1 + fill * fill * fill * fill);
    const double memory =
        t[kBytes] / (device_.bandwidth * p[kBandwidth]) * (1 - resident * p[kCacheGain] / (1 + p[kCacheGain]));
    const double compute = t[kFlops] / (device_.peak_bf16 * format_.rate * p[kPeak]);
    const double q = 1 + p[kOverlap];
    return std::log(p[kLaunch] + overlapped_pair(q, memory, compute) + p[kPerStep] * t[kSteps] +
                    p[kPerSequence] * t[kSequences]);
  }
  [[nodiscard]] double least_seconds(const double* t) const override {
    if (what_ == What::experts || what_ == What::scale) return 0;  // units and differences, not bytes
    return std::max(0.0, t[kBytes] - device_.cache) / device_.bandwidth;
  }
  [[nodiscard]] double roofline_seconds(const double* t) const override {
    return std::max(t[kFlops] / (device_.peak_bf16 * format_.rate), t[kBytes] / device_.bandwidth);
  }

  [[nodiscard]] std::span<const std::string_view> features() const override { return kFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    out[0] = out[1] = out[2] = 0;
    if (what_ == What::quantise || what_ == What::scale || what_ == What::bmm) out[0] = std::log(v[1]);
    if (what_ == What::experts) out[0] = std::log(v[1]);
    if (what_ == What::conv || what_ == What::delta) {
      out[0] = std::log(v[4] * v[5] * 2 + v[6] * v[7]);
      out[1] = std::log(v[6]);
      out[2] = std::log(v[6] / v[4]);
    }
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }
  [[nodiscard]] int axes() const override { return plane() ? 2 : 1; }
  [[nodiscard]] bool plane() const override { return what_ == What::conv || what_ == What::delta; }
  void coordinates(std::span<const double> v, double* out) const override {
    out[0] = std::log2(v[0]);
    if (plane()) out[1] = std::log2(v[1]);
  }
  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name != "shape") return {};
    if (what_ == What::bmm) return {"num_heads"};
    if (what_ == What::experts) return {"activated_experts"};
    if (plane()) return {"num_k_heads", "head_k_dim", "num_v_heads", "head_v_dim"};
    return {"k"};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override { return plane() ? v[0] * v[1] : v[0]; }

 private:
  void derive_gdn(std::span<const double> v, double* t) const {
    const double tokens = v[0] * v[1];
    const double channels = 2 * v[4] * v[5] + v[6] * v[7];
    t[kSequences] = v[0];
    if (what_ == What::conv) {
      t[kBytes] = tokens * channels * 4 + v[0] * channels * v[3] * 2;
      return;
    }
    const double state = v[0] * v[6] * v[5] * v[7] * 4;
    t[kBytes] = 2 * state + tokens * 2 * (channels + v[6] * v[7]);
    t[kFlops] = tokens * v[6] * (generation_ ? 6 * v[5] * v[7] : 6 * v[5] * v[7] + 2 * kChunk * (v[5] + v[7]));
    t[kSteps] = generation_ ? v[1] : v[1] / kChunk;
  }

  DeviceLimits device_;
  KernelFormat format_;
  bool generation_;
  What what_ = What::quantise;
  CurveKernel kernel_;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_streaming_law(const KernelKey& key, const DeviceLimits& device,
                                                    KernelFormat format) {
  return std::make_shared<StreamingLaw>(key, device, format);
}

}  // namespace moecast
