#include <algorithm>
#include <array>
#include <cmath>

#include "sim/cost/kernel/expert_traffic.h"
#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/overlap.h"

namespace moecast {
namespace {

constexpr double kLnUs = 13.815510558;  ///< ln of microseconds in a second
constexpr double kLnGb = 20.723265837;  ///< ln of 1e9
constexpr double kUsualExperts = 128;
constexpr double kUsualHidden = 4096;
constexpr double kUsualTopK = 8;
/// Bytes of a message's header in a dispatch.
constexpr double kHeader = 16;

enum Coef {
  kStart,
  kStartExperts,
  kStartHidden,
  kWire,
  kToken,
  kTokenHidden,
  kRowRate,
  kOverlap,
  kNodeStart,
  kNic,
  kNodeGrowth,
  kCoefCount
};

double log_us(double microseconds) { return std::log(microseconds) - kLnUs; }

const std::array<KernelLaw::Coefficient, kCoefCount>& coefficients_of() {
  static const std::array<KernelLaw::Coefficient, kCoefCount> known{{
      {"start", "seconds of the launch and the first message", log_us(8), .5},
      {"start_experts", "seconds that 128 experts to poll add", log_us(1.5), 1},
      {"start_hidden", "seconds that a row of 4096 values adds", log_us(1), 1},
      {"wire", "share of the scale-up link", std::log(.5), .5},
      {"token", "seconds a token that a block handles", log_us(.7), 1},
      {"token_hidden", "seconds a token of 4096 values that a block handles", log_us(1.2), 1},
      {"row_rate", "bytes a second that one block copies", std::log(6) + kLnGb, 1},
      {"overlap", "q - 1 of the norm over link, NIC, tokens and rows", 0, .7},
      {"node_start", "seconds that a second node adds", log_us(8), .7},
      {"nic", "share of the NIC's line rate", std::log(.93), .1},
      {"node_growth", "seconds that each doubling of nodes beyond two adds", log_us(2), .7},
  }};
  return known;
}

constexpr std::array<std::string_view, 4> kFeatures{"ln_hidden", "ln_top_k", "ln_experts", "ln_nodes"};
enum Term { kTokens, kSent, kHidden, kTopK, kExperts, kNodes, kTermCount };

/// DeepEP low latency: one copy a selected expert, written straight to its rank.
class LowLatencyLaw final : public KernelLaw {
 public:
  LowLatencyLaw(const KernelKey& key, const DeviceLimits& device)
      : device_(device), combine_(key.kernel.ends_with("combine")) {
    kernel_.terms = {{1.0, {{0, 1.0}, {1, 1.0}, {2, 0.7}, {3, 1.5}}}};
  }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override { return coefficients_of(); }

  [[nodiscard]] int least_curves() const override { return 2; }

  void derive(const KernelRow& row, RankLoadCache& /*loads*/, double* t) const override {
    const std::span<const double> v = row.values;
    t[kTokens] = v[0];
    t[kSent] = v[1] > 0 ? v[1] : v[0] * v[3];
    t[kHidden] = v[2];
    t[kTopK] = v[3];
    t[kExperts] = v[4];
    t[kNodes] = v[5];
  }

  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double hidden = t[kHidden] / kUsualHidden;
    // One block serves a group of experts: few experts leave most multiprocessors idle.
    const double blocks = std::ceil(t[kExperts] / std::ceil(t[kExperts] / device_.multiprocessors));
    double start = p[kStart] + p[kStartExperts] * t[kExperts] / kUsualExperts + p[kStartHidden] * hidden;
    if (t[kNodes] > 1) start += p[kNodeStart] + p[kNodeGrowth] * std::log2(t[kNodes] / 2);
    double working = blocks;
    double token = p[kToken] + p[kTokenHidden] * hidden;
    if (combine_) {
      working = std::max(blocks, std::min(t[kTokens], device_.multiprocessors));
      token = p[kToken] + p[kTokenHidden] * hidden * t[kTopK] / kUsualTopK;
    }
    const double tokens = std::ceil(t[kTokens] / working) * token;
    const double rows = t[kSent] * row_bytes(t) / (blocks * p[kRowRate]);
    const double link = link_bytes(t) / (p[kWire] * device_.link);
    const double nic = t[kNodes] > 1 ? nic_bytes(t) / (p[kNic] * device_.nic) : 0;
    return std::log(start + overlapped(1 + p[kOverlap], link, nic, tokens, rows));
  }
  [[nodiscard]] double measured_half_width(std::span<const double> /*row*/) const override { return 0.08; }
  [[nodiscard]] double machine_size(std::span<const double> v) const override { return v[5]; }
  /// Nodes left out: 15 % off at few tokens, where start-up rules, 10 % where the NIC does.
  [[nodiscard]] double growth_half_width(std::span<const double> v) const override {
    return v[0] <= 16 ? 0.15 : v[0] <= 256 ? 0.11 : 0.10;
  }
  [[nodiscard]] double least_seconds(const double* t) const override {
    const double link = link_bytes(t) / device_.link;
    return t[kNodes] > 1 && device_.nic > 0 ? std::max(link, nic_bytes(t) / device_.nic) : link;
  }
  [[nodiscard]] double roofline_seconds(const double* t) const override { return least_seconds(t); }

  [[nodiscard]] std::span<const std::string_view> features() const override { return kFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    for (int i = 0; i < 4; ++i) out[i] = std::log(v[static_cast<std::size_t>(i) + 2]);
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }
  [[nodiscard]] int axes() const override { return 1; }
  void coordinates(std::span<const double> v, double* out) const override { out[0] = std::log2(v[0]); }
  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name == "shape") return {"hidden_size", "num_topk", "num_experts", "node_num"};
    if (name == "experts") return {"num_experts"};
    if (name == "nodes" || name == "ranks") return {"node_num"};
    return {};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override { return v[0]; }

 private:
  [[nodiscard]] double row_bytes(const double* t) const {
    return combine_ ? combine_row_bytes(t[kHidden]) : dispatch_row_bytes(t[kHidden]) + kHeader;
  }
  [[nodiscard]] double link_bytes(const double* t) const {
    return t[kSent] * (kDevicesPerNode - 1) / (kDevicesPerNode * t[kNodes]) * row_bytes(t);
  }
  [[nodiscard]] double nic_bytes(const double* t) const {
    return t[kSent] * (t[kNodes] - 1) / t[kNodes] * row_bytes(t);
  }

  DeviceLimits device_;
  bool combine_;
  CurveKernel kernel_;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_low_latency_law(const KernelKey& key, const DeviceLimits& device) {
  return std::make_shared<LowLatencyLaw>(key, device);
}

}  // namespace moecast
