#include <algorithm>
#include <array>
#include <cmath>

#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/overlap.h"

namespace moecast {
namespace {

/// Slices of experts among 16 and more tensor-parallel ranks are narrower than what kernels are made for.
constexpr std::uint8_t rank_level(double expert_ranks, double tensor_ranks) {
  if (tensor_ranks >= 16) return 4;
  return expert_ranks <= 1 ? 0 : expert_ranks <= 16 ? 1 : expert_ranks <= 64 ? 2 : 3;
}

enum Term {
  kHidden,
  kInter,
  kWeights,
  kRows,
  kGlobalRows,
  kDistinct,
  kOtherDistinct,
  kMatrices,
  kMisaligned,
  kTiles,
  kTermCount
};

/// Tiles of a kernel: those tuned for its experts and width (or what is not known), or the framework's defaults.
constexpr double kTuned = 0;
constexpr double kSmallDefault = 1;
constexpr double kLargeDefault = 2;
constexpr double kPaddedColumns = 256;

enum Coef {
  kLaunch,
  kBandwidth,
  kPeak,
  kOverlap,
  kRowTile,
  kLocalElementwise,
  kGlobalHidden,
  kGlobalInter,
  kPerExpert,
  kPerHidden,
  kPerInter,
  kEffectiveWidth,
  kCacheGain,
  kMisalignment,
  kSaturation,
  kStreamedWidth,
  kOtherExperts,
  kCoefCount,  ///< of kernels whose tuned tiles are not known
  kLargeMemory = kCoefCount,
  kLargeCompute,
  kLargeRowTile,
  kSmallTiles,
  kTiledCoefCount
};

constexpr double kLnMs = 6.907755279;  ///< the priors were found in milliseconds; laws answer in seconds
constexpr std::array<KernelLaw::Coefficient, kTiledCoefCount> kCoefficients{{
    {"launch", "seconds of the launches of one call", -3.7 - kLnMs, 1.0},
    {"bandwidth", "share of the datasheet's memory bandwidth that streams weights", -0.15, 0.4},
    {"peak", "share of the datasheet's arithmetic peak", -0.5, 0.6},
    {"overlap", "q - 1 of (memory^q + compute^q)^(1/q)", 0.0, 0.7},
    {"row_tile", "rows that an expert is rounded up to, smoothly", 2.8, 1.0},
    {"local_elementwise", "passes over the rows of the rank", -1.0, 1.0},
    {"global_hidden", "passes over hidden rows of all ranks", -1.0, 1.5},
    {"global_inter", "passes over intermediate rows of all ranks", -2.0, 1.5},
    {"per_expert", "seconds an expert with rows", -9.3 - kLnMs, 1.0},
    {"per_hidden", "seconds a column of hidden: depth of the first GEMM", -13.0 - kLnMs, 1.5},
    {"per_inter", "seconds a column of the local width: depth of the second GEMM", -13.5 - kLnMs, 1.5},
    {"effective_width", "columns that a GEMM costs beyond its width", 4.0, 0.8},
    {"cache_gain", "odds of the share of weights that the last-level cache serves", -1.0, 1.0},
    {"misalignment", "slow-down where the local width is no multiple of 16", -0.1, 0.7},
    {"saturation", "exponent (times 0.3) of the loss at few rows an expert; no logarithm", 0.0, 0.5},
    {"streamed_width", "columns that an expert's width is rounded up to while its weights stream, smoothly", 4.0, 1.0},
    {"other_experts", "rows that an expert of another rank costs beyond its own: tiles that only write zeros", 1.5,
     1.5},
    {"large_default_memory", "what streaming weights takes longer on large default tiles, a ratio less 1", -1.0, 1.0},
    {"large_default_compute", "what arithmetic takes longer on large default tiles, a ratio less 1", 0.0, 0.7},
    {"large_default_row_tile", "rows that an expert is rounded up to on large default tiles, smoothly", 3.7, 0.7},
    {"small_default", "what both take longer on small default tiles, a ratio less 1", -2.0, 1.0},
}};

constexpr std::array<std::string_view, 10> kFeatures{"hidden",   "local_width", "local_experts", "experts_over_top_k",
                                                     "top_k",    "ranks",       "load",          "misaligned",
                                                     "matrices", "tuned"};
enum Feature { kFHidden, kFInter, kFLocal, kFSparsity, kFTopK, kFRanks, kFLoad, kFMisaligned, kFMatrices, kFTuned };

CurveKernel make_kernel() {
  // KERNEL: lengths in natural logarithms, found by leaving shapes out. The second term is the tuned-table effect: what
  // a framework's autotuner found for (experts, width).
  return {{{1.0,
            {{kFHidden, 3},
             {kFInter, 2},
             {kFLocal, 2.5},
             {kFSparsity, 2.5},
             {kFTopK, 3},
             {kFRanks, 4},
             {kFLoad, 0.7},
             {kFMisaligned, 1},
             {kFMatrices, 1},
             {kFTuned, 1}}},
           {0.3, {{kFInter, 0.25}, {kFLocal, 0.25}, {kFHidden, 3}, {kFLoad, 1}, {kFMatrices, 1}, {kFTuned, 1}}}}};
}

/// ln(1 + coefficient of variation of the expert loads), as published draws of these laws have it.
double load_feature(double alpha) {
  if (alpha <= 0) return 0;
  // Through (1.01, 1.02) and (1.2, 1.25); other exponents in proportion below.
  return alpha < 1.01 ? 1.02 * alpha / 1.01 : 1.02 + (alpha - 1.01) * (1.25 - 1.02) / (1.2 - 1.01);
}

class MoeLaw final : public KernelLaw {
 public:
  MoeLaw(const KernelKey& key, const DeviceLimits& device, KernelFormat format)
      : device_(device), format_(format), kernel_(make_kernel()) {
    const KernelLayout& layout = *find_kernel_layout(key.layout);
    tokens_ = layout.column("num_tokens");
    hidden_ = layout.column("hidden_size");
    inter_ = layout.column("inter_size");
    top_k_ = layout.column("topk");
    experts_ = layout.column("num_experts");
    tp_ = layout.column("moe_tp_size");
    ep_ = layout.column("moe_ep_size");
    alpha_ = layout.column(kDistributionColumn);
    matrices_ = layout.column(kMatricesColumn);
    if (key.layout == "wideep_moe") slots_ = layout.column("num_slots");
    // Triton's tiles lose half of their rate on a width that is no multiple of 16; other kernels pad.
    triton_ = key.kernel.find("triton_tritonexperts") != std::string::npos ||
              key.kernel.find("fused_moe_triton") != std::string::npos || key.kernel == "vllm_fused_moe" ||
              key.kernel.find("oaitriton") != std::string::npos;
    pads_ = key.dtype == "nvfp4" && ((key.framework == "sglang" && key.kernel.find("trtllm") != std::string::npos) ||
                                     key.kernel.find("min_latency") != std::string::npos);
    for (const TunedTiles& tuned : device.tuned) {
      if (key.layout == tuned.layout && key.kernel == tuned.kernel &&
          std::ranges::find(tuned.formats, key.dtype) != tuned.formats.end()) {
        tuned_ = tuned;
      }
    }
    device_.tuned.clear();
  }

  [[nodiscard]] std::span<const Coefficient> coefficients() const override {
    return std::span(kCoefficients).first(tuned_ ? kTiledCoefCount : kCoefCount);
  }

  void derive(const KernelRow& row, RankLoadCache& loads, double* t) const override {
    const std::span<const double> v = row.values;
    const double experts = slots_ ? v[*slots_] : v[experts_];
    const RankLoad load = row.load
                              ? *row.load
                              : loads(static_cast<std::int64_t>(v[tokens_]), static_cast<std::int64_t>(v[top_k_]),
                                      static_cast<std::int64_t>(experts), static_cast<std::int64_t>(v[ep_]), v[alpha_]);
    const double inter = width_of(v);
    t[kHidden] = v[hidden_];
    t[kInter] = inter;
    t[kMatrices] = v[matrices_] == 0 ? 3 : v[matrices_];
    t[kRows] = std::max(load.rows, 0.3);
    t[kDistinct] = std::max(load.distinct, 0.3);
    t[kGlobalRows] = v[tokens_] * v[top_k_];
    t[kOtherDistinct] = triton_ ? other_distinct(t[kDistinct], t[kGlobalRows], experts, v[ep_]) : 0;
    t[kWeights] = t[kDistinct] * v[hidden_] * inter * t[kMatrices] * format_.weight_bytes;
    t[kMisaligned] = triton_ && std::fmod(inter, 16) != 0 ? 1 : 0;
    t[kTiles] = tiles(v[tokens_], experts / v[ep_], inter);
  }

  void prepare(const double* logs, double* prepared) const override {
    KernelLaw::prepare(logs, prepared);
    prepared[kSaturation] = logs[kSaturation];
  }

  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double penalty = 1 + p[kMisalignment] * t[kMisaligned];
    // How many times as long as on tuned tiles, and the rows that an expert is rounded up to.
    double slower_memory = 1;
    double slower_compute = 1;
    double row_tile = p[kRowTile];
    if (t[kTiles] == kLargeDefault) {
      slower_memory += p[kLargeMemory];
      slower_compute += p[kLargeCompute];
      row_tile = p[kLargeRowTile];
    } else if (t[kTiles] == kSmallDefault) {
      slower_memory = slower_compute = 1 + p[kSmallTiles];
    }
    const double fill = t[kWeights] / device_.cache;
    const double resident = 1 / (1 + fill * fill * fill * fill);
    const double memory = t[kWeights] * std::hypot(1.0, p[kStreamedWidth] / t[kInter]) /
                          (device_.bandwidth * p[kBandwidth]) * (1 - resident * p[kCacheGain] / (1 + p[kCacheGain])) *
                          penalty * slower_memory;
    const double x = t[kRows] / t[kDistinct];
    const double rows = t[kDistinct] * std::sqrt(x * x + row_tile * row_tile);
    const double saturation = std::pow(x / (x + 60), 0.3 * p[kSaturation]);
    const double compute = 2 * rows * t[kMatrices] * t[kHidden] * std::hypot(t[kInter], p[kEffectiveWidth]) /
                           (peak() * p[kPeak] * saturation) * penalty * slower_compute;
    const double q = 1 + p[kOverlap];
    const double overlapped = overlapped_pair(q, memory, compute);
    const double global_rows = t[kGlobalRows] + t[kOtherDistinct] * p[kOtherExperts];
    // An activation reads what the first GEMM wrote and writes one width: 5 passes over it with a gate, 3 without.
    const double inter_passes = (2 * t[kMatrices] - 1) / 5;
    const double elementwise =
        2 / device_.bandwidth *
        (t[kRows] * (2 * t[kHidden] + t[kMatrices] * t[kInter]) * p[kLocalElementwise] +
         global_rows * (t[kHidden] * p[kGlobalHidden] + t[kInter] * inter_passes * p[kGlobalInter]));
    return std::log(p[kLaunch] + overlapped + elementwise + p[kPerExpert] * t[kDistinct] + p[kPerHidden] * t[kHidden] +
                    p[kPerInter] * t[kInter]);
  }

  [[nodiscard]] double least_seconds(const double* t) const override {
    const double flops = 2 * t[kRows] * t[kMatrices] * t[kHidden] * t[kInter];
    return std::max(flops / peak(), std::max(0.0, t[kWeights] - device_.cache) / device_.bandwidth);
  }
  [[nodiscard]] double roofline_seconds(const double* t) const override {
    const double flops = 2 * t[kRows] * t[kMatrices] * t[kHidden] * t[kInter];
    return std::max(flops / peak(), t[kWeights] / device_.bandwidth);
  }

  [[nodiscard]] std::span<const std::string_view> features() const override { return kFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    const double inter = std::ceil(v[inter_] / v[tp_]);
    const double experts = slots_ ? v[*slots_] : v[experts_];
    out[kFHidden] = std::log(v[hidden_]);
    out[kFInter] = std::log(inter);
    out[kFLocal] = std::log(experts / v[ep_]);
    out[kFSparsity] = std::log(experts / v[top_k_]);
    out[kFTopK] = std::log(v[top_k_]);
    out[kFRanks] = std::log(v[ep_]);
    out[kFLoad] = load_feature(v[alpha_]);
    out[kFMisaligned] = std::fmod(inter, 16) != 0 ? 1 : 0;
    out[kFMatrices] = v[matrices_] == 2 ? 0 : 1;
    out[kFTuned] = tuned_ && tuned_->contains(experts / v[ep_], inter) ? 1 : 0;
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }

  [[nodiscard]] int axes() const override { return 2; }
  [[nodiscard]] std::vector<double> fixed_nodes(int axis) const override {
    std::vector<double> nodes;
    for (double z = -8; axis == 1 && z <= 13; z += 0.5) nodes.push_back(z);
    return nodes;
  }
  /// log2 of the tokens, where autotuned buckets line up, and of the rows an expert, where tiles do.
  void coordinates(std::span<const double> v, double* out) const override {
    out[0] = std::log2(v[tokens_]);
    out[1] = std::log2(v[tokens_] * v[top_k_] / v[experts_]);
  }

  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name == "shape") return {"hidden_size", "inter_size", "topk", "num_experts"};
    if (name == "experts") return {"topk", "num_experts"};
    if (name == "inter") return {"inter_size"};
    return {};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override { return v[tokens_]; }
  /// Weights of a rank (of few, what nobody knows of a kernel's start is most), ranks, and how uneven the load is.
  [[nodiscard]] std::array<std::uint8_t, kIntervalFactors> interval_levels(std::span<const double> v) const override {
    const double experts = (slots_ ? v[*slots_] : v[experts_]) / v[ep_];
    const double matrices = v[matrices_] == 0 ? 3 : v[matrices_];
    const double bytes = experts * matrices * v[hidden_] * std::ceil(v[inter_] / v[tp_]) * format_.weight_bytes;
    const double load = v[alpha_];
    return {static_cast<std::uint8_t>(bytes <= 60e6    ? 0
                                      : bytes <= 250e6 ? 1
                                      : bytes <= 1e9   ? 2
                                                       : 3),
            rank_level(v[ep_], v[tp_]),
            static_cast<std::uint8_t>(load <= 0    ? 0
                                      : load < 1.1 ? 1
                                                   : 2)};
  }

 private:
  /// Columns of an expert that a rank computes. TensorRT-LLM's nvfp4 kernels under SGLang, and its own of few tokens,
  /// pad the first GEMM, gate and up together, to multiples of 256: 64 columns take as long as 128 at any tokens,
  /// without a gate 84 as long as 168 from 2,048 on. (Under vLLM weights are not padded: 128 take 1.1 to 1.3 times as
  /// long.)
  [[nodiscard]] double width_of(std::span<const double> v) const {
    const double width = std::ceil(v[inter_] / v[tp_]);
    if (!pads_) return width;
    const double block = v[matrices_] == 2 ? kPaddedColumns : kPaddedColumns / 2;
    return std::ceil(width / block) * block;
  }
  [[nodiscard]] double peak() const { return device_.peak_bf16 * format_.rate; }
  /// Experts of other ranks that have rows: as many a rank as on this one, no more than there are or than rows touch.
  [[nodiscard]] static double other_distinct(double distinct, double rows, double experts, double ranks) {
    return std::max(0.0, std::min({rows, experts, distinct * ranks}) - distinct);
  }
  [[nodiscard]] double tiles(double tokens, double experts, double width) const {
    if (!tuned_ || tuned_->contains(experts, width)) return kTuned;
    return tuned_->small_default && tokens <= experts ? kSmallDefault : kLargeDefault;
  }

  DeviceLimits device_;
  KernelFormat format_;
  CurveKernel kernel_;
  std::optional<TunedTiles> tuned_;  ///< nullopt: not known
  std::size_t tokens_, hidden_, inter_, top_k_, experts_, tp_, ep_, alpha_, matrices_;
  std::optional<std::size_t> slots_;
  bool triton_ = false;
  bool pads_ = false;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_moe_law(const KernelKey& key, const DeviceLimits& device, KernelFormat format) {
  return std::make_shared<MoeLaw>(key, device, format);
}

}  // namespace moecast
