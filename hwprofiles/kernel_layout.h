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
};

/// Columns of one kind of table of measured kernels: how to read it, and which of them say which kernel ran.
struct KernelLayout {
  std::string_view name;  ///< "moe": the first part of a table's file name
  OperatorKind kind = OperatorKind::gemm;
  std::vector<std::string_view> kernel;  ///< text columns whose values, joined by "/", name the kernel
  std::vector<std::string_view> dtype;   ///< text columns whose values, joined by "+", name the format
  std::vector<TableColumn> numbers;      ///< KernelSamples::columns, in this order
  std::string_view latency;
  double latency_unit_s = 1e-3;  ///< seconds that a 1 in the latency column stands for

  /// Index in `numbers`. @throws std::out_of_range for a name that is none: a bug.
  [[nodiscard]] std::size_t column(std::string_view column_name) const;
};

/// The column that holds a routing law as text ("balanced", "uniform", "power_law_1.2"): 0, or the exponent.
inline constexpr std::string_view kDistributionColumn = "distribution";
/// Number of matrices of an expert: 3 gated, 2 not. The tables do not say it; see `matrices_of`.
inline constexpr std::string_view kMatricesColumn = "expert_matrices";

std::span<const KernelLayout> kernel_layouts();
const KernelLayout* find_kernel_layout(std::string_view name);

/// @return 0 for balanced and uniform, the exponent of power_law_A; nullopt for anything else.
std::optional<double> parse_distribution(std::string_view text);
std::string distribution_text(double alpha);

/// Expert matrices of a measured shape whose table does not say it: experts of the Nemotron family (inter 1856 or 2688,
/// or top-k 22) have two in vLLM and TensorRT-LLM; all other measured experts are gated.
double matrices_of(std::string_view framework, std::string_view kernel, double inter_size, double top_k);

}  // namespace moecast
