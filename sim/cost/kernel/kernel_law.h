#pragma once
#include <Eigen/Core>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/backend_rules.h"
#include "hwprofiles/kernel_samples.h"
#include "hwprofiles/profile.h"
#include "models/routing/rank_load.h"
#include "sim/cost/kernel/curve_kriging.h"
#include "sim/cost/kernel/score_interval.h"

namespace moecast {

/// What a datasheet says of a GPU: normalisers of the laws, whose coefficients scale them.
struct DeviceLimits {
  double bandwidth = 0;  ///< B/s
  double peak_bf16 = 0;  ///< FLOP/s, dense
  double cache = 0;      ///< last-level cache, B
  double multiprocessors = 0;
  double link = 0;              ///< scale-up link of one direction, B/s; 0: none or not known
  double nic = 0;               ///< scale-out link of one direction a device, B/s; 0: not known
  bool switch_reduces = false;  ///< the scale-up switch adds up (NVLink SHARP: NVIDIA from sm90 on)
  int node_devices = 8;         ///< that the scale-up links join
  /// Tiles that frameworks have tuned for the device, as their files of the profile say.
  std::vector<TunedTiles> tuned = {};
};

/// @param backends  of the profile's folder. @throws InputError naming the quantity that the profile lacks.
DeviceLimits device_limits(const Profile& profile, const std::vector<BackendRules>& backends = {});

/// What a 90 % interval of ln latency gains on either side on a machine larger than any measured one.
struct MachineGrowth {
  double low = 0;
  double high = 0;
};
/// @param machine, largest  sizes (nodes, ranks). @param half_width  a doubling.
MachineGrowth machine_growth(double machine, double largest, double half_width);

/// Bytes of a stored weight with its scales, and the arithmetic rate over bf16, of a format as tables spell it
/// ("w4a8_mxfp4_mxfp8").
struct KernelFormat {
  double weight_bytes = 2;
  double rate = 1;
};
std::optional<KernelFormat> kernel_format(std::string_view dtype);

/// One row of a table, and the load of its experts where the caller knows it better than the routing law of the table.
struct KernelRow {
  std::span<const double> values;  ///< in the order of the layout
  std::optional<RankLoad> load = std::nullopt;
};

/// The physics of one kind of kernel on one device: what it costs before anything is learned from neighbours.
///
/// Every coefficient is a logarithm with a unit, a prior and a width, so that 20 samples are enough to fit.
class KernelLaw {
 public:
  struct Coefficient {
    std::string_view name;
    std::string_view meaning;
    double prior = 0;
    double width = 1;  ///< standard deviation of the prior
  };
  static constexpr int kMostCoefficients = 24;
  static constexpr int kMostTerms = 20;

  virtual ~KernelLaw() = default;
  [[nodiscard]] virtual std::span<const Coefficient> coefficients() const = 0;
  /// What the law needs of a row: at most kMostTerms numbers.
  virtual void derive(const KernelRow& row, RankLoadCache& loads, double* terms) const = 0;
  /// Coefficients as `log_seconds` takes them: their exponentials unless the law says otherwise.
  virtual void prepare(const double* logs, double* prepared) const;
  [[nodiscard]] virtual double log_seconds(const double* terms, const double* prepared) const = 0;
  /// Least seconds that the datasheet allows for the work of a row, caches counted as free.
  [[nodiscard]] virtual double least_seconds(const double* terms) const = 0;
  /// Seconds of a constant-efficiency roofline at the datasheet's peaks: the baseline.
  [[nodiscard]] virtual double roofline_seconds(const double* terms) const = 0;

  /// Half width of a 90 % interval of ln latency between two measured positions of a curve: between repeated
  /// measurements 0.5 % median, 4 % p90.
  [[nodiscard]] virtual double measured_half_width(std::span<const double> /*row*/) const { return 0.04; }
  /// Size of the machine that a row runs on (nodes, ranks); 1 where it does not matter.
  [[nodiscard]] virtual double machine_size(std::span<const double> /*row*/) const { return 1; }
  /// What each doubling of the machine beyond the largest measured one adds to the half width, ln.
  [[nodiscard]] virtual double growth_half_width(std::span<const double> /*row*/) const { return 0; }

  /// Whether the host, not the device, bounds a row: what another machine's host did says nothing then.
  [[nodiscard]] virtual bool host_bound(const double* /*terms*/, const double* /*prepared*/) const { return false; }

  /// Coordinates of a configuration for kriging.
  [[nodiscard]] virtual std::span<const std::string_view> features() const = 0;
  virtual void feature_values(std::span<const double> row, double* out) const = 0;
  [[nodiscard]] virtual const CurveKernel& kernel() const = 0;

  /// Weight of the priors in a fit to so many rows: one standard deviation off costs as much as a single row that is
  /// off by this in ln.
  [[nodiscard]] virtual double prior_weight(std::size_t /*rows*/) const { return 0.3; }
  /// Whether intervals come from all kernels of the layout together: each has too few groups of its own.
  [[nodiscard]] virtual bool pools_scores() const { return false; }

  /// Variance of a curve about the surface, where left-out groups do not ask for more.
  [[nodiscard]] virtual double usual_noise() const { return 0.15; }

  /// Curves below which nothing is learned from neighbours.
  [[nodiscard]] virtual int least_curves() const { return 5; }

  /// Axes of a curve. Lines: the residual is the mean of one linear interpolation an axis. Plane: two axes, bilinear.
  [[nodiscard]] virtual int axes() const = 0;
  [[nodiscard]] virtual bool plane() const { return false; }
  /// Nodes that an axis always has; empty: those that were measured.
  [[nodiscard]] virtual std::vector<double> fixed_nodes(int axis) const;
  virtual void coordinates(std::span<const double> row, double* out) const = 0;

  /// Columns that a hold-out by this name keeps together ("shape", "experts", "inter"); empty: unknown name.
  [[nodiscard]] virtual std::vector<std::string_view> group_columns(std::string_view name) const = 0;
  /// Work that intervals are kept by, in bands (tokens).
  [[nodiscard]] virtual double band_size(std::span<const double> row) const = 0;
  /// Levels of what else decides how far a prediction errs (width, ranks, load); one level of each where nothing does.
  [[nodiscard]] virtual std::array<std::uint8_t, kIntervalFactors> interval_levels(
      std::span<const double> /*row*/) const {
    return {};
  }
  [[nodiscard]] IntervalStratum stratum(std::span<const double> row) const {
    return {kernel_band(band_size(row)), interval_levels(row)};
  }
};

/// @return nullptr when no law is known for the layout or the format; `reason` then says why.
std::shared_ptr<const KernelLaw> make_kernel_law(const KernelKey& key, const DeviceLimits& device,
                                                 std::string* reason = nullptr);

// One function a file.
std::shared_ptr<const KernelLaw> make_moe_law(const KernelKey& key, const DeviceLimits& device, KernelFormat format);
std::shared_ptr<const KernelLaw> make_dense_law(const KernelKey& key, const DeviceLimits& device, KernelFormat format);
std::shared_ptr<const KernelLaw> make_attention_law(const KernelKey& key, const DeviceLimits& device,
                                                    KernelFormat format);
std::shared_ptr<const KernelLaw> make_streaming_law(const KernelKey& key, const DeviceLimits& device,
                                                    KernelFormat format);
/// Of devices whose scale-up link is known.
std::shared_ptr<const KernelLaw> make_collective_law(const KernelKey& key, const DeviceLimits& device);
std::shared_ptr<const KernelLaw> make_low_latency_law(const KernelKey& key, const DeviceLimits& device);
std::shared_ptr<const KernelLaw> make_high_throughput_law(const KernelKey& key, const DeviceLimits& device);
std::shared_ptr<const KernelLaw> make_one_sided_law(const KernelKey& key, const DeviceLimits& device);

}  // namespace moecast
