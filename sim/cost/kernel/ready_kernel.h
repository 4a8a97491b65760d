#pragma once
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/core/dtype.h"
#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {

/// Distance (standard deviation of ln seconds) up to which a kernel counts as measured on a shape.
inline constexpr double kNearShape = 0.5;

/// A row of a layout under construction, by column names. Copy it into a hot loop: no heap.
class KernelRowValues {
 public:
  explicit KernelRowValues(const KernelLayout& layout) : layout_(&layout) {}
  /// @throws std::out_of_range for a name that is none: a bug.
  KernelRowValues& set(std::string_view column, double value) {
    values_[layout_->column(column)] = value;
    return *this;
  }
  KernelRowValues& set(std::size_t column, double value) {
    values_[column] = value;
    return *this;
  }
  [[nodiscard]] std::span<const double> span() const { return std::span(values_).first(layout_->numbers.size()); }

 private:
  static constexpr std::size_t kMostColumns = 12;
  const KernelLayout* layout_;
  std::array<double, kMostColumns> values_{};
};

/// By which rule of its framework a kernel was picked.
struct KernelPick {
  Origin origin = Origin::assumed;
  std::string source;
};

/// A configuration of a kernel ready for many positions. Immutable; safe to share.
struct ReadyKernelData {
  KernelModel model;  ///< owned: the compiled kernel points at it
  CompiledKernel compiled;
  std::string substitution;        ///< empty, or what it stands for
  std::optional<KernelPick> pick;  ///< nullopt: no rule names it

  /// The framework's kernel from a position on, where that is another one.
  std::shared_ptr<const ReadyKernelData> next;
  std::size_t next_column = 0;
  double next_from = 0;

  [[nodiscard]] CompiledKernel::Answer at(const KernelRowValues& row,
                                          std::optional<RankLoad> load = std::nullopt) const;
  [[nodiscard]] double seconds(const KernelRowValues& row, std::optional<RankLoad> load = std::nullopt) const {
    return std::exp(at(row, load).log_seconds);
  }
  /// What is guessed about it: a kernel that the framework is assumed to pick for a shape that was not measured; empty:
  /// nothing.
  [[nodiscard]] std::string guess() const;
  /// Its key, and in brackets what it stands for.
  [[nodiscard]] std::string described() const {
    return substitution.empty() ? model.key.text() : model.key.text() + " (" + substitution + ")";
  }
};
using ReadyKernel = std::shared_ptr<const ReadyKernelData>;

/// Which kernels may answer, the best first: of the framework, of its version, in the earlier format, picked by the
/// framework's rules, measured nearer to the row, newer.
struct KernelWanted {
  std::string_view layout;
  std::string_view part;             ///< end of the kernel's name; empty: any
  std::string_view only;             ///< whole name; empty: any
  std::string_view framework;        ///< preferred; empty: any
  std::string_view version;          ///< preferred; empty: the newest
  std::vector<std::string> formats;  ///< as tables spell them, preferred first; empty: any
  /// Of kernels measured about as near, the one with the most rows: what the framework usually picks.
  bool usual = false;
  /// Row that the framework picks its kernel by, where it is not the one that is asked: behind a dispatch a kernel sees
  /// a layer of the rank's own experts.
  std::optional<KernelRowValues> picked_by = std::nullopt;
};

/// @return nullptr where the machine has none.
std::shared_ptr<ReadyKernelData> find_ready_kernel(const KernelCalibration& calibration, const KernelWanted& wanted,
                                                   const KernelRowValues& row);

/// The best as above, and the kernels beside it of which the framework runs the fastest: those that its rule names, or
/// without a rule every other kernel of its framework, version and format that was measured about as near. Empty where
/// the machine has none.
std::vector<ReadyKernel> find_ready_kernels(const KernelCalibration& calibration, const KernelWanted& wanted,
                                            const KernelRowValues& row);

/// The same kernel of a collective on links of another bandwidth: its law there, no curve of its own, an interval twice
/// as wide. Where the links are the same ones it stays as it was measured.
/// @param own  of the machine that was measured. @param asked  the links. @param spans_nodes  NICs matter.
void move_to_links(ReadyKernelData& kernel, const DeviceLimits& own, const DeviceLimits& asked, bool spans_nodes,
                   const KernelRowValues& row);

/// Formats of a number type as tables spell them, the usual one first.
std::vector<std::string> table_formats(DType dtype);

}  // namespace moecast
