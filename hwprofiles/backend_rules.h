#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/kernel_layout.h"
#include "models/core/json.h"
#include "models/core/origin.h"

namespace moecast {

inline constexpr int kBackendRulesVersion = 1;

/// What a column must be.
struct ColumnCondition {
  std::size_t column = 0;  ///< of the layout
  double from = 0;
  double to = 0;
  double multiple_of = 0;      ///< 0: no matter
  double not_multiple_of = 0;  ///< 0: no matter

  [[nodiscard]] bool holds(std::span<const double> row) const;
  [[nodiscard]] std::string text(const KernelLayout& layout) const;
};

/// Which kernel a framework runs for some rows of an operator, and how that is known.
struct KernelRule {
  std::string layout;                              ///< operator, as tables are named
  std::vector<std::string> formats;                ///< as tables spell them
  std::vector<std::vector<ColumnCondition>> when;  ///< all conditions of one of these; empty: always
  std::vector<std::string> kernels;                ///< one; or several, of which the fastest runs
  /// measured: the conditions explain every choice that the tables record. assumed: that other shapes are like the
  /// tables' is a guess, for something that no column says (router, activation, setting) decides too.
  Origin origin = Origin::assumed;
  std::int64_t rows = 0;   ///< of this profile's tables that the rule decides
  std::int64_t agree = 0;  ///< of these, rows whose recorded kernel it names
  std::string source;

  [[nodiscard]] bool names(std::string_view kernel) const;
  [[nodiscard]] bool holds(std::span<const double> row) const;
  [[nodiscard]] std::string when_text() const;
};

/// Experts and widths that a framework has tuned tiles for; it runs all others on default tiles.
struct TunedTiles {
  std::string layout;
  std::string kernel;
  std::vector<std::string> formats;
  std::vector<std::array<std::int64_t, 2>> pairs;  ///< (experts, width) of one rank, ascending
  /// Default tiles are small (16 rows) while there are at most as many tokens as experts; else always the large ones.
  bool small_default = false;
  std::string source;

  [[nodiscard]] bool contains(double experts, double width) const;
};

TunedTiles parse_tuned_tiles(const JsonView& view);
Json tuned_tiles_json(const TunedTiles& tuned);

/// hwprofiles/<machine>/backends/<framework>.json: which kernels a framework picks there, and how they are tiled.
struct BackendRules {
  std::string framework;
  std::vector<KernelRule> rules;  ///< the first that holds counts
  std::vector<TunedTiles> tuned;

  /// nullptr: nothing is known of such rows.
  [[nodiscard]] const KernelRule* find(std::string_view layout, std::string_view format,
                                       std::span<const double> row) const;
  /// A value of a position column from which on another rule may hold.
  struct Threshold {
    std::size_t column = 0;
    double value = 0;
  };
  /// Ascending.
  [[nodiscard]] std::vector<Threshold> thresholds(std::string_view layout, std::string_view format) const;
};

/// @throws InputError naming the pointer: unknown operator, column or key, an empty range, counts that do not fit.
BackendRules parse_backend_rules_text(std::string_view text, const std::string& where);
std::string backend_rules_text(const BackendRules& rules);
/// Every FOLDER/backends/*.json, by name; empty where there is none.
/// @throws InputError as above, or when a file is not named after its framework.
std::vector<BackendRules> read_backend_rules(const std::string& folder);
/// The rule by which a framework picks its kernel for a row; nullptr: none is known.
const KernelRule* find_kernel_rule(const std::vector<BackendRules>& backends, std::string_view framework,
                                   std::string_view layout, std::string_view format, std::span<const double> row);

}  // namespace moecast
