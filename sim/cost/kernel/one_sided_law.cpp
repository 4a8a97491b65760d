#include <algorithm>
#include <array>
#include <cmath>

#include "sim/cost/kernel/expert_traffic.h"
#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/overlap.h"

namespace moecast {
namespace {

constexpr double kLnUs = 13.815510558;  ///< ln of microseconds in a second
constexpr double kUsualRanks = 8;

enum Coef { kStart, kFloor, kWire, kOverlap, kPeers, kGrowth, kCoefCount };

double log_us(double microseconds) { return std::log(microseconds) - kLnUs; }

const std::array<KernelLaw::Coefficient, kCoefCount>& coefficients_of() {
  static const std::array<KernelLaw::Coefficient, kCoefCount> known{{
      {"start", "seconds of launch and synchronisation on 8 ranks", log_us(12), .6},
      {"floor", "seconds of the transfer of the least data", log_us(8), .8},
      {"wire", "share of the link on 8 ranks", std::log(.75), .3},
      {"overlap", "q - 1 of the norm over floor and link", std::log(2.0), .7},
      {"peers", "power of ranks that slows the link", std::log(.03), .7},
      {"growth", "seconds that each doubling of ranks beyond 8 adds", log_us(.5), 1},
  }};
  return known;
}

constexpr std::array<std::string_view, 4> kFeatures{"ln_hidden", "ln_copies", "ln_ranks", "element"};
enum Term { kRows, kRowBytes, kRanks, kTermCount };

/// One-sided writes and reads inside one NVLink domain: no NIC up to 72 ranks.
class OneSidedLaw final : public KernelLaw {
 public:
  explicit OneSidedLaw(const DeviceLimits& device) : device_(device) {
    kernel_.terms = {{1.0, {{0, 1.0}, {1, 1.0}, {2, 2.0}, {3, 2.0}}}};
  }
  [[nodiscard]] std::span<const Coefficient> coefficients() const override { return coefficients_of(); }
  [[nodiscard]] bool pools_scores() const override { return true; }

  [[nodiscard]] int least_curves() const override { return 2; }

  void derive(const KernelRow& row, RankLoadCache& /*loads*/, double* t) const override {
    const std::span<const double> v = row.values;
    t[kRows] = v[0] * (v[6] > 0 ? v[6] : std::min(v[2], v[4]));
    t[kRowBytes] = v[1] * v[5];
    t[kRanks] = v[4];
  }
  [[nodiscard]] double log_seconds(const double* t, const double* p) const override {
    const double doublings = std::log2(t[kRanks] / kUsualRanks);
    const double wire = link_bytes(t) / (p[kWire] * device_.link) * std::pow(t[kRanks] / kUsualRanks, p[kPeers]);
    const double start = p[kStart] + p[kGrowth] * doublings;
    return std::log(std::max(start, p[kStart] / 2) + overlapped(1 + p[kOverlap], p[kFloor], wire));
  }
  [[nodiscard]] double machine_size(std::span<const double> v) const override { return v[4]; }
  [[nodiscard]] double growth_half_width(std::span<const double> /*row*/) const override { return 0.1; }
  [[nodiscard]] double least_seconds(const double* t) const override { return link_bytes(t) / device_.link; }
  [[nodiscard]] double roofline_seconds(const double* t) const override { return least_seconds(t); }

  [[nodiscard]] std::span<const std::string_view> features() const override { return kFeatures; }
  void feature_values(std::span<const double> v, double* out) const override {
    out[0] = std::log(v[1]);
    out[1] = std::log(std::max(1e-3, v[6] > 0 ? v[6] : std::min(v[2], v[4])));
    out[2] = std::log(v[4]);
    out[3] = std::log2(v[5]);
  }
  [[nodiscard]] const CurveKernel& kernel() const override { return kernel_; }
  [[nodiscard]] int axes() const override { return 1; }
  void coordinates(std::span<const double> v, double* out) const override { out[0] = std::log2(v[0]); }
  [[nodiscard]] std::vector<std::string_view> group_columns(std::string_view name) const override {
    if (name == "shape" || name == "ranks") return {"ep_size"};
    if (name == "format") return {"element_bytes"};
    return {};
  }
  [[nodiscard]] double band_size(std::span<const double> v) const override { return v[0]; }

 private:
  [[nodiscard]] static double link_bytes(const double* t) {
    return t[kRows] * t[kRowBytes] * (t[kRanks] - 1) / t[kRanks];
  }
  DeviceLimits device_;
  CurveKernel kernel_;
};

}  // namespace

std::shared_ptr<const KernelLaw> make_one_sided_law(const KernelKey& /*key*/, const DeviceLimits& device) {
  return std::make_shared<OneSidedLaw>(device);
}

}  // namespace moecast
