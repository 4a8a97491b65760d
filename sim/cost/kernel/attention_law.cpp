#include <algorithm>
#include <array>
#include <cmath>

#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/overlap.h"

namespace moecast {
namespace {

enum Coef {
  kLaunch,
  kBandwidth,
  kPeak,
  kOverlap,
  kPerHead,
  kPerKey,
  kPerSequence,
  kCacheGain,
  kCoefCount,  ///< of kernels whose blocks are not known
  kReread = kCoefCount,
  kCombine,
  kPerPart,
  kGroup,
  kBlockedCoefCount
};
constexpr double kLnMs = 6.907755279;
using Coefficients = std::array<KernelLaw::Coefficient, kBlockedCoefCount>;

constexpr Coefficients coefficients_of(double peak, double per_key = -10 - kLnMs, double per_key_width = 2) {
  return {{
      {"launch", "seconds of the launch of one call", -4.6 - kLnMs, 1.0},
      {"bandwidth", "share of the datasheet's memory bandwidth", -0.3, 0.5},
      {"peak", "share of the datasheet's arithmetic peak", peak, 1.0},
      {"overlap", "q - 1 of (memory^q + compute^q)^(1/q)", 0.5, 0.7},
      {"per_head", "seconds an element of the heads of a batch", -16 - kLnMs, 2.0},
      {"per_key", "seconds a key that one block walks over", per_key, per_key_width},
      {"per_sequence", "seconds a sequence", -10 - kLnMs, 2.0},
      {"cache_gain", "odds of the share of the bytes that the last-level cache serves", -1.0, 1.0},
      {"reread", "share of the memory bandwidth at which the last-level cache serves a key again", 1.0, 0.7},
      {"combine", "seconds to combine what several blocks found of a sequence", -5.5 - kLnMs, 1.0},
      {"per_part", "seconds a block that is combined", -8.5 - kLnMs, 1.0},
      {"group", "seconds to bring query heads of several KV heads together", -5.5 - kLnMs, 1.0},
  }};
}
constexpr Coefficients kPrefill = coefficients_of(-0.6);
constexpr Coefficients kDecode = coefficients_of(-2.0);
/// A block of FlashAttention-2 that has all keys to itself takes 23 ns a key on A100 and 20 ns on L40S: what a tile
/// waits for hardly depends on the machine.
constexpr Coefficients kBlockedDecode = coefficients_of(-1.0, -17.65, 0.15);

constexpr std::array<std::string_view, 6> kFeatures{"log2_heads",    "log2_kv_heads", "log2_heads_per_kv_head",
                                                    "log2_head_dim", "log2_window",   "divided"};
enum Term {
  kBytes,
  kFlops,
  kParallel,
  kWidth,
  kWalk,
  kBatch,
  kRereadBytes,
  kSplit,
  kParts,
  kGrouped,
  kTileFlops,
  kTermCount
};

/// Latent attention: a query head has 128 + 64 dimensions, a value head 128; the cache holds 512 + 64 a token.
constexpr double kQueryDim = 192;
constexpr double kValueDim = 128;
constexpr double kLatent = 512;
constexpr double kLatentWithRope = 576;
/// Blocks beyond which the walk over the keys is spread no further.
constexpr double kMostSplit = 64;

/// How FlashAttention-2 divides a decode step (its num_splits_heuristic): rows and keys of a block, blocks of one
/// multiprocessor, parts of a sequence at most, and the share of the best that is good enough.
constexpr double kBlockRows = 64;
constexpr double kBlocksPerMultiprocessor = 2;
constexpr double kMostParts = 128;
constexpr double kGoodEnough = 0.85;
constexpr double kFullEnough = 0.8;
constexpr double block_keys(double head_dim) { return head_dim <= 64 ? 256 : head_dim <= 128 ? 128 : 64; }

/// Length of the feature that tells kernels whose keys are divided among blocks from those that walk over all.
constexpr double kDividedLength = 0.5;

/// Parts that the keys of a sequence are divided into. @param blocks  of the whole step, undivided.
double parts_of(double blocks, double keys, double head_dim, double multiprocessors) {
  const double places = multiprocessors * kBlocksPerMultiprocessor;
  if (blocks >= kFullEnough * places) return 1;
  const double tiles = std::ceil(keys / block_keys(head_dim));
  const auto most = static_cast<std::size_t>(std::min({kMostParts, places, tiles}));
  std::array<double, static_cast<std::size_t>(kMostParts) + 1> efficiency{};
  double best = 0;
  double before = 0;
  for (std::size_t parts = 1; parts <= most; ++parts) {
    const auto count = static_cast<double>(parts);
    const double tiles_each = std::ceil(tiles / count);
    if (tiles_each == before) continue;  // no shorter walk than with one part less
    before = tiles_each;
    const double waves = blocks * count / places;
    efficiency[parts] = waves / std::ceil(waves);
    best = std::max(best, efficiency[parts]);
  }
  for (std::size_t parts = 1; parts <= most; ++parts) {
    if (efficiency[parts] >= kGoodEnough * best && efficiency[parts] > 0) return static_cast<double>(parts);
  }
  return 1;
}

/// Attention over a KV cache: grouped or latent, prefill or decode.
class AttentionLaw final : public KernelLaw {
 public:
  AttentionLaw(const KernelKey& key, const DeviceLimits& device)
      : device_(device),
        prefill_(key.layout.starts_with("context")),
        latent_(key.layout.ends_with("_mla")),
        cache_bytes_(key.dtype.ends_with("+fp8") ? 1 : 2) {
    // Of a framework's own FlashAttention, machines before Hopper run the second version.
    const bool second =
        key.kernel.ends_with("flash_attn_fa2") || (key.kernel.ends_with("flash_attn") && !device.switch_reduces);
    blocks_known_ = second && !prefill_ && !latent_;
    kernel_.terms = {{1.0, {{0, 2.0}, {1, 2.0}, {2, 2.0}, {3, 1.0}, {4, 3.0}, {5, kDividedLength}}}};
  }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override {
    if (blocks_known_) return kBlockedDecode;
    return std::span(prefill_ ? kPrefill : kDecode).first(kCoefCount);
  }

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
    t[kWidth] = dim;
    t[kRereadBytes] = t[kSplit] = 0;
    if (prefill_) {
      const double pairs = window > 0 ? length * seen - seen * seen / 2 : length * length / 2;
      t[kFlops] = 4 * batch * heads * dim * pairs;
      t[kBytes] = batch * length * dim * (4 * heads + 2 * kv_heads * (2 + cache_bytes_));
      t[kParallel] = batch * heads;
      t[kWalk] = seen / std::min(t[kParallel], kMostSplit);
    } else {
      t[kFlops] = 4 * batch * heads * dim * seen;
      t[kBytes] = batch * dim * (2 * kv_heads * seen * cache_bytes_ + 4 * heads);
      t[kParallel] = batch * kv_heads;
      t[kWalk] = seen / std::min(t[kParallel], kMostSplit);
      if (blocks_known_) divide(batch, heads, kv_heads, dim, seen, window, t);
    }
  }

  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double fill = t[kBytes] / device_.cache;
    const double resident = 1 / (1 + fill * fill * fill * fill);
    const double memory =
        t[kBytes] * (1 - resident * p[kCacheGain] / (1 + p[kCacheGain])) / (device_.bandwidth * p[kBandwidth]) +
        (blocks_known_ ? t[kRereadBytes] / (device_.bandwidth * p[kReread]) : 0);
    const double compute = (blocks_known_ ? t[kTileFlops] : t[kFlops]) / (device_.peak_bf16 * p[kPeak]);
    const double q = 1 + p[kOverlap];
    const double walk = p[kPerKey] * t[kWalk];
    const double start = p[kLaunch] + p[kPerHead] * t[kParallel] * t[kWidth] + p[kPerSequence] * t[kBatch];
    const double streamed = overlapped_pair(q, memory, compute);
    if (!blocks_known_) return std::log(start + streamed + walk);
    return std::log(start + overlapped_pair(q, streamed, walk) + p[kCombine] * t[kSplit] + p[kPerPart] * t[kParts] +
                    p[kGroup] * t[kGrouped]);
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
    out[5] = blocks_known_ && is_divided(v[3], kv_heads, v[6]) ? 1 : 0;
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

  static bool is_divided(double heads, double kv_heads, double window) { return heads > kv_heads && window <= 0; }

  /// FlashAttention-2: the query heads of a KV head share a block and its keys are divided among blocks, but not where
  /// there is a window or a KV head a query head: then each query head is one block that reads the keys by itself.
  void divide(double batch, double heads, double kv_heads, double dim, double seen, double window, double* t) const {
    const bool shared = is_divided(heads, kv_heads, window);
    const double blocks = batch * (shared ? kv_heads : heads);
    const double parts = shared ? parts_of(blocks, seen, dim, device_.multiprocessors) : 1;
    const double waves = std::ceil(blocks * parts / (device_.multiprocessors * kBlocksPerMultiprocessor));
    t[kWalk] = seen / parts * waves;
    t[kSplit] = parts > 1 ? 1 : 0;
    t[kParts] = parts > 1 ? parts : 0;
    t[kGrouped] = shared && kv_heads > 1 && batch > 1 ? 1 : 0;  // else they lie so already
    t[kParallel] = blocks;
    t[kTileFlops] = 4 * blocks * kBlockRows * std::ceil((shared ? heads / kv_heads : 1) / kBlockRows) * dim * seen;
    if (!shared) t[kRereadBytes] = 2 * batch * (heads - kv_heads) * seen * dim * cache_bytes_;
  }

  void derive_latent(double batch, double length, double heads, double* t) const {
    t[kRereadBytes] = t[kSplit] = 0;
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
    t[kWalk] = length / std::min(t[kParallel], kMostSplit);
  }

  DeviceLimits device_;
  bool prefill_, latent_;
  bool blocks_known_ = false;  ///< how the kernel divides a decode step
  double cache_bytes_;
  CurveKernel kernel_;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_attention_law(const KernelKey& key, const DeviceLimits& device,
                                                    KernelFormat /*format*/) {
  return std::make_shared<AttentionLaw>(key, device);
}

}  // namespace moecast
