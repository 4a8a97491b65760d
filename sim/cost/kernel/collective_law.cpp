#include <algorithm>
#include <array>
#include <cmath>

#include "sim/cost/kernel/expert_traffic.h"
#include "sim/cost/kernel/kernel_law.h"

namespace moecast {
namespace {

constexpr double kLnUs = 13.815510558;  ///< ln of microseconds in a second
constexpr int kPaths = 4;
/// A library picks nearly, not exactly, the fastest: weights (preference * time)^-8.
constexpr double kSharpness = 8;
constexpr double kLeastSwitchRanks = 8;

enum Coef {
  kStart1,
  kStep1,
  kWire1,
  kStart2,
  kStep2,
  kWire2,
  kStart3,
  kStep3,
  kWire3,
  kLocal,
  kSwitchStart,
  kSwitchWire,
  kPrefer2,
  kPrefer3,
  kHost,
  kCopy,
  kNodeStart,
  kNodeGrowth,
  kNic,
  kCoefCount
};

double log_us(double microseconds) { return std::log(microseconds) - kLnUs; }

/// Paths of NCCL are its protocols (LL, LL128, Simple) and the switch; of custom all-reduces one-shot, two-shot, the
/// library's ring and the switch.
std::array<KernelLaw::Coefficient, kCoefCount> coefficients_of(bool custom, bool pairwise) {
  const auto pick = [&](double ring, double own, double pairs) { return custom ? own : pairwise ? pairs : ring; };
  return {{
      {"start_1", "seconds to start path 1 (LL; one-shot)", log_us(pick(4, 4, 8)), pick(.7, .3, .7)},
      {"step_1", "seconds a serial step of path 1", log_us(pick(.8, .15, .45)), pick(.7, .5, .7)},
      {"wire_1", "share of the link that path 1 reaches", std::log(pick(.10, .5, .05)), .7},
      {"start_2", "seconds to start path 2 (LL128; two-shot)", log_us(pick(6, 6, 12)), pick(.7, .3, .7)},
      {"step_2", "seconds a serial step of path 2", log_us(pick(.8, .3, .35)), pick(.7, .5, .7)},
      {"wire_2", "share of the link that path 2 reaches", std::log(pick(.4, .55, .45)), .5},
      {"start_3", "seconds to start path 3 (Simple; the library's ring)", log_us(pick(12, 30, 18)), .8},
      {"step_3", "seconds a serial step of path 3", log_us(1.5), 1},
      {"wire_3", "share of the link that path 3 reaches", std::log(.75), .25},
      {"local", "bandwidth of the copy of a rank's own part, of the link's", std::log(1.5), .7},
      {"switch_start", "seconds to start a reduction in the switch", log_us(45), .5},
      {"switch_wire", "share of the link that a reduction in the switch reaches", std::log(.6), .25},
      {"prefer_2", "factor on path 2's time when the library chooses", 0, .25},
      {"prefer_3", "factor on path 3's time when the library chooses", 0, .25},
      {"host", "seconds that the host needs to launch one call (eager)", log_us(20), .3},
      {"copy", "share of the memory bandwidth that eager copies of the input reach", std::log(.9), .5},
      {"node_start", "seconds that a second node adds", log_us(12), .7},
      {"node_growth", "seconds that each doubling of nodes beyond two adds", log_us(6), .7},
      {"nic", "share of the NIC's line rate", std::log(.93), .1},
  }};
}

constexpr std::array<std::string_view, 4> kFeatures{"ln_ranks", "eager", "element", "ln_nodes"};
enum Term { kBytes, kRanks, kNodes, kEager, kSwitch, kTermCount };

/// What a path does with the buffer of B bytes on n ranks.
struct PathShape {
  double steps = 0;  ///< serial
  double wire = 0;   ///< bytes over the link, of B
  double local = 0;  ///< bytes copied on the rank, of B
};

/// All-reduce, all-gather, reduce-scatter and all-to-all: a start, serial steps, bytes over the link and a local copy
/// on each path, of which the library picks nearly the fastest.
///
/// B is the whole buffer of a rank: the output of an all-gather, the input of the others.
class CollectiveLaw final : public KernelLaw {
 public:
  CollectiveLaw(const KernelKey& key, const DeviceLimits& device)
      : device_(device),
        custom_(key.layout == "custom_allreduce"),
        reduces_(key.kernel == "all_reduce"),
        pairwise_(key.kernel == "alltoall"),
        coefficients_(coefficients_of(custom_, pairwise_)) {
    kernel_.terms = {{1.0, {{0, 2.0}, {1, 0.7}, {2, 1.0}, {3, 1.5}}}};
  }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override { return coefficients_; }
  [[nodiscard]] double prior_weight(std::size_t rows) const override {
    constexpr double kRows = 60;
    return 0.3 * std::sqrt(static_cast<double>(rows) / kRows);
  }
  [[nodiscard]] bool pools_scores() const override { return true; }
  [[nodiscard]] double usual_noise() const override { return 0.05; }
  [[nodiscard]] int least_curves() const override { return 2; }

  void derive(const KernelRow& row, RankLoadCache& /*loads*/, double* t) const override {
    const std::span<const double> v = row.values;
    t[kBytes] = v[0] * v[2];
    t[kRanks] = v[1];
    t[kNodes] = v[3];
    t[kEager] = v[4];
    // Integers of one byte are not reduced by the switch.
    const bool reducible = !(v[2] == 1 && !custom_);
    t[kSwitch] = reduces_ && device_.switch_reduces && reducible && v[1] >= kLeastSwitchRanks ? 1 : 0;
  }

  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double replayed = log_replayed(t, p);
    if (t[kEager] == 0) return replayed;
    const double ratio = p[kHost] / std::exp(replayed);
    const double floored = std::exp(replayed) * std::pow(1 + std::pow(ratio, kSharpness), 1 / kSharpness);
    return std::log(floored + 2 * t[kBytes] / (p[kCopy] * device_.bandwidth));
  }
  // Sizes between two measured ones, every other one left out: 8 to 18 % off at p90.
  [[nodiscard]] double measured_half_width(std::span<const double> v) const override {
    const double band = band_size(v);
    return band < 10 ? 0.08 : band < 500 ? 0.165 : 0.13;
  }
  [[nodiscard]] double machine_size(std::span<const double> v) const override { return v[1]; }
  /// Inside a node 8 ranks from 2 and 4 need that much beyond what 2 and 4 err; more on one link were never measured.
  [[nodiscard]] double growth_half_width(std::span<const double> v) const override {
    if (v[3] > 1) return 0.2;
    constexpr double kMostMeasured = 8;
    return v[1] > kMostMeasured ? 0.1 : 0.03;
  }
  [[nodiscard]] bool host_bound(const double* t, const double* p) const override {
    constexpr double kNear = 1.25;
    return t[kEager] != 0 && std::exp(log_replayed(t, p)) < kNear * p[kHost];
  }

  [[nodiscard]] double least_seconds(const double* t) const override {
    const double rank_share = (t[kRanks] - 1) / t[kRanks];
    const double link = t[kBytes] * rank_share / device_.link;
    if (t[kNodes] <= 1 || device_.nic == 0) return link;
    return std::max(link, nic_bytes(t[kBytes], t[kRanks], t[kNodes]) / device_.nic);
  }
  [[nodiscard]] double roofline_seconds(const double* t) const override { return least_seconds(t); }

  [[nodiscard]] std::span<const std::string_view> features() const override { return kFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    out[0] = std::log(v[1]);
    out[1] = v[4];
    out[2] = std::log2(v[2]);
    out[3] = std::log(v[3]);
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }
  // Half of the bumps of a library sit at a buffer size, half at a size of what one rank gets.
  [[nodiscard]] int axes() const override { return 2; }
  void coordinates(std::span<const double> v, double* out) const override {
    out[0] = std::log2(v[0] * v[2]);
    out[1] = std::log2(v[0] * v[2] / v[1]);
  }
  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name == "shape" || name == "ranks") return {"num_gpus", "node_num"};
    if (name == "nodes") return {"node_num"};
    return {};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override {
    constexpr double kSmall = 65536;
    constexpr double kMiddle = 4194304;
    const double bytes = v[0] * v[2];
    return bytes <= kSmall ? 1 : bytes <= kMiddle ? 100 : 1000;  // the three bands of intervals
  }

 private:
  /// Without the host: what a replayed graph takes.
  [[nodiscard]] double log_replayed(const double* t, const double* p) const {
    const double bytes = t[kBytes];
    const bool nodes = t[kNodes] > 1;
    const double across = nodes ? p[kNodeStart] + p[kNodeGrowth] * std::log2(t[kNodes] / 2) : 0;
    const double nic = nodes ? nic_bytes(bytes, t[kRanks], t[kNodes]) / (device_.nic * p[kNic]) : 0;
    std::array<double, kPaths> logs{};
    const int count = t[kSwitch] != 0 ? kPaths : kPaths - 1;
    double least = 1e300;
    std::array<double, kPaths> weighted{};
    for (int i = 0; i < count; ++i) {
      const PathShape shape = shape_of(i, t[kRanks]);
      const double wire = i < 3 ? p[3 * i + 2] : p[kSwitchWire];
      const double link = bytes * shape.wire / (wire * device_.link);
      const double slower = i < 3 ? std::max(1.0, p[kWire3] / wire) : 1;
      const double start = i < 3 ? p[3 * i] + p[3 * i + 1] * shape.steps : p[kSwitchStart];
      const double time =
          start + across + std::max(link, nic * slower) + bytes * shape.local / (p[kLocal] * device_.link);
      const auto at = static_cast<std::size_t>(i);
      logs[at] = std::log(time);
      weighted[at] = kSharpness * (logs[at] + (i == 1 ? std::log(p[kPrefer2]) : i == 2 ? std::log(p[kPrefer3]) : 0));
      least = std::min(least, weighted[at]);
    }
    double sum = 0;
    double mean = 0;
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double weight = std::exp(least - weighted[at]);
      sum += weight;
      mean += weight * logs[at];
    }
    return mean / sum;
  }
  [[nodiscard]] PathShape shape_of(int path, double n) const {
    if (path == 3) return {0, (n + 1) / n, 0};
    const double share = (n - 1) / n;
    if (!custom_) {
      const double rounds = reduces_ ? 2 : 1;
      return {rounds * (n - 1), rounds * share, 1 / n};
    }
    if (path == 0) return {n - 1, n - 1, 0};
    return {2 * (n - 1), 2 * share, path == 1 ? 0 : 1 / n};
  }
  /// Bytes that one NIC carries. Rings leave a node once a channel, and each device has its own.
  [[nodiscard]] double nic_bytes(double bytes, double ranks, double nodes) const {
    if (pairwise_) return bytes * (nodes - 1) / nodes;
    const double devices = std::min(kDevicesPerNode, std::max(1.0, ranks / nodes));
    return (reduces_ ? 2 : 1) * bytes * (ranks - 1) / ranks / devices;
  }

  DeviceLimits device_;
  bool custom_;
  bool reduces_;
  bool pairwise_;
  std::array<Coefficient, kCoefCount> coefficients_;
  CurveKernel kernel_;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_collective_law(const KernelKey& key, const DeviceLimits& device) {
  return std::make_shared<CollectiveLaw>(key, device);
}

}  // namespace moecast
