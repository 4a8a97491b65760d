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
constexpr double kUsualHidden = 4096;
constexpr double kUsualRanks = 4;  ///< that a token of the usual combine reaches
/// Share of the scale-up link between nodes, where it never limited.
constexpr double kForwardWire = 0.85;

// Ten of one node, ten of several: forwarding between nodes is another kernel. Priors of several nodes are near what
// one H100 cluster of 2 and 4 nodes showed.
enum Coef {
  kStart,
  kStartHidden,
  kOnce,
  kOnceRate,
  kCopy,
  kCopyRate,
  kWire,
  kOverlap,
  kFill,
  kHalfFull,
  kNodeStart,
  kNodeGrowth,
  kNodeOnce,
  kNodeRate,
  kForward,
  kForwardRate,
  kNic,
  kNodeOverlap,
  kNodeFill,
  kNodeHalfFull,
  kCoefCount
};

double log_us(double microseconds) { return std::log(microseconds) - kLnUs; }
double log_gb(double gigabytes) { return std::log(gigabytes) + kLnGb; }

std::array<KernelLaw::Coefficient, kCoefCount> coefficients_of(bool combine) {
  return {{
      {"start", "seconds of the launch and the barriers, one node", log_us(25), .5},
      {"start_hidden", "seconds that a row of 4096 values adds", log_us(3), 1},
      {"once", "seconds a token on a multiprocessor", log_us(.2), 1},
      {"once_rate", "bytes a second that a multiprocessor reads of a token", log_gb(30), 1},
      {"copy", "seconds a copy on a multiprocessor", log_us(.05), 1},
      {"copy_rate", "bytes a second that a multiprocessor copies", log_gb(20), .7},
      {"wire", "share of the scale-up link", std::log(.7), .5},
      {"overlap", "q - 1 of the norm over copies and link", std::log(3.0), .7},
      {"fill", "seconds that full queues add", log_us(15), .7},
      {"half_full", "tokens a multiprocessor at which queues are half full", std::log(8.0), .7},
      {"node_start", "seconds of the launch and the barriers, several nodes", log_us(combine ? 47 : 27), .5},
      {"node_growth", "seconds that each doubling of nodes beyond two adds", log_us(8), .5},
      {"node_once", "seconds a token on a multiprocessor, several nodes", log_us(.2), 1},
      {"node_rate", "bytes a second that a multiprocessor sends to nodes", log_gb(combine ? 15 : 19), .7},
      {"forward", "seconds a forwarded copy on a multiprocessor", log_us(.05), 1},
      {"forward_rate", "bytes a second that a multiprocessor forwards", log_gb(combine ? 14 : 20), .7},
      {"nic", "share of the NIC's line rate", std::log(.932), .03},
      {"node_overlap", "q - 1 of the norm over multiprocessors, NIC and link", std::log(3.0), .7},
      {"node_fill", "seconds that full queues add, several nodes", log_us(combine ? 80 : 30), .7},
      {"node_half_full", "tokens a multiprocessor at which these are half full", std::log(8.0), .7},
  }};
}

constexpr std::array<std::string_view, 6> kFeatures{"ln_multiprocessors", "ln_hidden", "ln_top_k",
                                                    "ln_experts",         "ln_nodes",  "several_nodes"};
enum Term { kTokens, kMultiprocessors, kHidden, kNodes, kRanksReached, kNodesReached, kTermCount };

/// DeepEP normal mode: one copy a distinct rank, across nodes one a distinct node, which forwards.
class HighThroughputLaw final : public KernelLaw {
 public:
  HighThroughputLaw(const KernelKey& key, const DeviceLimits& device)
      : device_(device), combine_(key.kernel.ends_with("combine")), coefficients_(coefficients_of(combine_)) {
    kernel_.terms = {{1.0, {{0, 1.0}, {1, 1.0}, {2, 1.0}, {3, 1.0}, {4, 2.0}, {5, 0.5}}}};
  }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override { return coefficients_; }

  void derive(const KernelRow& row, RankLoadCache& /*loads*/, double* t) const override {
    const std::span<const double> v = row.values;
    t[kTokens] = v[0];
    t[kMultiprocessors] = v[1];
    t[kHidden] = v[2];
    t[kNodes] = v[5];
    t[kRanksReached] = distinct_groups(kDevicesPerNode * v[5], v[4], v[3]);
    t[kNodesReached] = v[5] > 1 ? distinct_groups(v[5], v[4], v[3]) : 1;
  }

  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double share = t[kTokens] / t[kMultiprocessors];
    const double row = row_bytes(t);
    if (t[kNodes] > 1) {
      const double start =
          p[kNodeStart] + p[kNodeGrowth] * std::log2(t[kNodes] / 2) + p[kNodeFill] * share / (share + p[kNodeHalfFull]);
      const double work = share * (p[kNodeOnce] + t[kNodesReached] * row / p[kNodeRate] +
                                   t[kRanksReached] * (p[kForward] + row / p[kForwardRate]));
      const double nic = nic_bytes(t) / (p[kNic] * device_.nic);
      const double link = link_bytes(t) / (kForwardWire * device_.link);
      return std::log(start + overlapped(1 + p[kNodeOverlap], work, nic, link));
    }
    const double hidden = t[kHidden] / kUsualHidden * (combine_ ? std::sqrt(t[kRanksReached] / kUsualRanks) : 1);
    const double start = p[kStart] + p[kStartHidden] * hidden + p[kFill] * hidden * share / (share + p[kHalfFull]);
    const double once = share * (p[kOnce] + row / p[kOnceRate]);
    const double copies = share * t[kRanksReached] * (p[kCopy] + row / p[kCopyRate]);
    const double link = link_bytes(t) / (p[kWire] * device_.link);
    const double q = 1 + p[kOverlap];
    return std::log(start + (combine_ ? overlapped(q, once, copies, link) : once + overlapped(q, copies, link)));
  }
  [[nodiscard]] double machine_size(std::span<const double> v) const override { return v[5]; }
  /// Nodes left out: 30 % off at few tokens, where start-up rules, 10 % where the NIC does.
  [[nodiscard]] double growth_half_width(std::span<const double> v) const override {
    return v[0] <= 16 ? 0.30 : v[0] <= 256 ? 0.20 : 0.10;
  }
  [[nodiscard]] double least_seconds(const double* t) const override {
    const double link = link_bytes(t) / device_.link;
    return t[kNodes] > 1 && device_.nic > 0 ? std::max(link, nic_bytes(t) / device_.nic) : link;
  }
  [[nodiscard]] double roofline_seconds(const double* t) const override { return least_seconds(t); }

  [[nodiscard]] std::span<const std::string_view> features() const override { return kFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    for (int i = 0; i < 5; ++i) out[i] = std::log(v[static_cast<std::size_t>(i) + 1]);
    out[5] = v[5] > 1 ? 1 : 0;
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }
  [[nodiscard]] int axes() const override { return 1; }
  void coordinates(std::span<const double> v, double* out) const override { out[0] = std::log2(v[0]); }
  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name == "shape") return {"hidden_size", "num_topk", "num_experts", "node_num"};
    if (name == "experts") return {"num_experts"};
    if (name == "nodes" || name == "ranks") return {"node_num"};
    if (name == "sms") return {"dispatch_sms"};
    return {};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override { return v[0]; }

 private:
  [[nodiscard]] double row_bytes(const double* t) const {
    return combine_ ? combine_row_bytes(t[kHidden]) : dispatch_row_bytes(t[kHidden]);
  }
  [[nodiscard]] double link_bytes(const double* t) const {
    return t[kTokens] * t[kRanksReached] * (kDevicesPerNode - 1) / kDevicesPerNode * row_bytes(t);
  }
  [[nodiscard]] double nic_bytes(const double* t) const {
    return t[kTokens] * t[kNodesReached] * (t[kNodes] - 1) / t[kNodes] * row_bytes(t);
  }

  DeviceLimits device_;
  bool combine_;
  std::array<Coefficient, kCoefCount> coefficients_;
  CurveKernel kernel_;
};

/// The exchange of counts before a transfer between nodes, while the CPU waits.
constexpr std::array<KernelLaw::Coefficient, 3> kNotifyCoefficients{{
    {"start", "seconds of an exchange of counts between two nodes", -10.4, .3},    // 30 us
    {"growth", "seconds that each doubling of nodes beyond two adds", -10.7, .5},  // 22 us
    {"token", "seconds a token", -18.4, 2},                                        // 10 ns
}};
constexpr std::array<std::string_view, 2> kNotifyFeatures{"ln_multiprocessors", "ln_nodes"};

class NotifyLaw final : public KernelLaw {
 public:
  NotifyLaw() { kernel_.terms = {{1.0, {{0, 1.0}, {1, 2.0}}}}; }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override { return kNotifyCoefficients; }
  void derive(const KernelRow& row, RankLoadCache& /*loads*/, double* t) const override {
    t[0] = row.values[0];
    t[1] = row.values[5];
  }
  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    return std::log(p[0] + p[1] * std::max(0.0, std::log2(t[1] / 2)) + p[2] * t[0]);
  }
  [[nodiscard]] double machine_size(std::span<const double> v) const override { return v[5]; }
  [[nodiscard]] double growth_half_width(std::span<const double> /*row*/) const override { return 0.3; }
  [[nodiscard]] double least_seconds(const double* /*t*/) const override { return 0; }
  [[nodiscard]] double roofline_seconds(const double* t) const override { return t[0] * 1e-9; }
  [[nodiscard]] std::span<const std::string_view> features() const override { return kNotifyFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    out[0] = std::log(v[1]);
    out[1] = std::log(v[5]);
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }
  [[nodiscard]] int axes() const override { return 1; }
  void coordinates(std::span<const double> v, double* out) const override { out[0] = std::log2(v[0]); }
  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name == "shape" || name == "nodes" || name == "ranks") return {"node_num"};
    return name == "sms" ? std::vector<std::string_view>{"dispatch_sms"} : std::vector<std::string_view>{};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override { return v[0]; }

 private:
  CurveKernel kernel_;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_high_throughput_law(const KernelKey& key, const DeviceLimits& device) {
  if (key.kernel.ends_with("_notify")) return std::make_shared<NotifyLaw>();
  return std::make_shared<HighThroughputLaw>(key, device);
}

}  // namespace moecast
