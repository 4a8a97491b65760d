#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "models/routing/row_group.h"

namespace moecast {

struct RoutingTrace;

enum class LoadKind { uniform, zipf, power_law, dirichlet, log_normal, histogram, trace };

std::string_view to_string(LoadKind kind);
std::optional<LoadKind> find_load_kind(std::string_view text);

/// How popular experts are. `parameter`: exponent (zipf, power_law), concentration (dirichlet), sigma (log_normal).
struct ExpertLoad {
  LoadKind kind = LoadKind::uniform;
  double parameter = 0;
  std::vector<double> histogram;  ///< kind histogram: one weight an expert, any scale
  std::uint64_t seed = 1;
  std::shared_ptr<const RoutingTrace> trace{};  ///< kind trace: what was recorded (see trace_popularity)
  friend bool operator==(const ExpertLoad&, const ExpertLoad&) = default;
};

/// Selection weight of each expert, sums to 1. @throws InputError on experts < 1 or a histogram of another length.
std::vector<double> expert_popularity(const ExpertLoad& load, std::int64_t experts);

/// Expected row histogram of one layer: T tokens choose k distinct experts each by Gumbel top-k of the popularity.
///
/// Groups are few (at most 12 values of rows) so that a cost model asks once a value; the sum of rows * experts is
/// T * k exactly. `experts` counts only experts with at least one row.
std::vector<RowGroup> expected_rows(const std::vector<double>& popularity, std::int64_t tokens, int top_k);

/// The same from inclusion probabilities (which a caller keeps to ask for many token counts).
std::vector<RowGroup> rows_of_inclusion(std::vector<double> inclusion, std::int64_t tokens);

/// One draw of rows per expert: every token chooses k distinct experts by popularity (a race of exponential clocks).
std::vector<std::int64_t> sample_rows(const std::vector<double>& popularity, std::int64_t tokens, int top_k,
                                      std::uint64_t seed);

/// Exact groups of a recorded histogram (empty experts left out).
std::vector<RowGroup> group_rows(const std::vector<std::int64_t>& rows_per_expert);

}  // namespace moecast
