#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/plan/operator.h"

namespace moecast {

/// A column of numbers in a table of measured kernels.
struct TableColumn {
  std::string_view name;
  double low = 0;   ///< smallest value that makes sense
  double high = 0;  ///< largest
  /// Value where a table lacks the column; nullopt: it must be there.
  std::optional<double> absent = std::nullopt;
  /// Rows that differ only here lie on one curve (tokens, batch, length).
  bool position = false;
  std::string_view source = {};  ///< column of the file; empty: `name`
  /// Reads a cell that is text ("half": 2 bytes); null: the cell is a number.
  std::optional<double> (*parse)(std::string_view text) = nullptr;

  [[nodiscard]] std::string_view file_column() const { return source.empty() ? name : source; }
};

/// A column of measured times. A table may hold several, each of a kernel of its own.
struct LatencyColumn {
  std::string_view name;
  double unit_s = 1e-3;        ///< seconds that a 1 stands for
  std::string_view part = {};  ///< added to the kernel's name ("dispatch"); empty: nothing
};

/// Columns of one kind of table of measured kernels: how to read it, and which of them say which kernel ran.
struct KernelLayout {
  std::string_view name;  ///< "moe": the first part of a table's file name
  OperatorKind kind = OperatorKind::gemm;
  std::vector<std::string_view> kernel;  ///< text columns whose values, joined by "/", name the kernel
  std::vector<std::string_view> dtype;   ///< text columns whose values, joined by "+", name the format
  std::vector<TableColumn> numbers;      ///< KernelSamples::columns, in this order
  std::vector<LatencyColumn> latencies;

  /// Index in `numbers`. @throws std::out_of_range for a name that is none: a bug.
  [[nodiscard]] std::size_t column(std::string_view column_name) const;
};

/// The column that holds a routing law as text ("balanced", "uniform", "power_law_1.2"): 0, or the exponent.
inline constexpr std::string_view kDistributionColumn = "distribution";
/// Number of matrices of an expert: 3 gated, 2 not. The tables do not say it; see `matrices_of`.
inline constexpr std::string_view kMatricesColumn = "expert_matrices";

std::span<const KernelLayout> kernel_layouts();
const KernelLayout* find_kernel_layout(std::string_view name);

/// Selections that ranks really sent, where a benchmark masks some of them; see `sent_rows_of`.
inline constexpr std::string_view kSentRowsColumn = "sent_rows";
/// Ranks that a token is sent to: drawn distinct in the tables, so min(top-k, ranks).
inline constexpr std::string_view kCopiesColumn = "copies";

/// Layouts of collectives and of the dispatch and combine of experts.
std::vector<KernelLayout> communication_layouts();
/// @return whether the layout is one of these.
bool is_communication(std::string_view layout);

/// Bytes of an element, scales included: "half" 2, "mxfp8" 1.03125. nullopt for a name that is none.
std::optional<double> parse_element_bytes(std::string_view text);

/// Selections a rank sends of `tokens` x `top_k`: SGLang 0.5.6 masks ten random (token, slot) pairs in its low-latency
/// benchmark.
double sent_rows_of(std::string_view framework, std::string_view version, double tokens, double top_k);

/// @return 0 for balanced and uniform, the exponent of power_law_A; nullopt for anything else.
std::optional<double> parse_distribution(std::string_view text);
std::string distribution_text(double alpha);

/// Expert matrices of a measured shape whose table does not say it: experts of the Nemotron family (inter 1856 or 2688,
/// or top-k 22) have two in vLLM 0.24, TensorRT-LLM and its kernels; all other measured experts are gated.
double matrices_of(std::string_view framework, std::string_view kernel, double inter_size, double top_k);

}  // namespace moecast
