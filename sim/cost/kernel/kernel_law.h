#pragma once
#include <Eigen/Core>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/kernel_samples.h"
#include "hwprofiles/profile.h"
#include "models/routing/rank_load.h"
#include "sim/cost/kernel/curve_kriging.h"

namespace moecast {

/// What a datasheet says of a GPU: normalisers of the laws, whose coefficients scale them.
struct DeviceLimits {
  double bandwidth = 0;  ///< B/s
  double peak_bf16 = 0;  ///< FLOP/s, dense
  double cache = 0;      ///< last-level cache, B
  double multiprocessors = 0;
};

/// @throws InputError naming the quantity that the profile lacks.
DeviceLimits device_limits(const Profile& profile);

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
  static constexpr int kMostCoefficients = 20;
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

  /// Coordinates of a configuration for kriging.
  [[nodiscard]] virtual std::span<const std::string_view> features() const = 0;
  virtual void feature_values(std::span<const double> row, double* out) const = 0;
  [[nodiscard]] virtual const CurveKernel& kernel() const = 0;

  /// Variance of a curve about the surface, where left-out groups do not ask for more.
  [[nodiscard]] virtual double usual_noise() const { return 0.15; }

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

}  // namespace moecast
