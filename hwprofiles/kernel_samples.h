#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/kernel_layout.h"

namespace moecast {

/// Which kernel a measurement or a cost model belongs to. Kernels are never pooled.
struct KernelKey {
  std::string framework;  ///< "vllm"; empty for a table of nobody's framework
  std::string version;    ///< "0.24.0"
  std::string layout;     ///< "moe", "gemm", ...
  std::string kernel;     ///< "sglang_fused_moe_triton"
  std::string dtype;      ///< as the table says it: "fp8_block", "bfloat16+fp8"
  friend auto operator<=>(const KernelKey&, const KernelKey&) = default;
  [[nodiscard]] std::string text() const;  ///< "vllm-0.24.0 moe KERNEL DTYPE"
};

/// All measured points of one kernel, structure of arrays.
struct KernelSamples {
  KernelKey key;
  std::vector<std::vector<double>> columns;  ///< one a column of the layout, in its order
  std::vector<double> latency_s;

  [[nodiscard]] std::size_t size() const { return latency_s.size(); }
  [[nodiscard]] const KernelLayout& layout() const;
  /// Values of a row in the order of the layout.
  void row(std::size_t index, std::vector<double>& out) const;
};

/// What a reader did with the rows of a table. Nothing is dropped silently.
struct TableReport {
  std::int64_t rows = 0;
  std::int64_t kept = 0;
  std::int64_t duplicates = 0;                   ///< same key again: the later row counts
  std::int64_t disagreeing = 0;                  ///< of these, latencies that differ by more than 10 %
  std::map<std::string, std::int64_t> left_out;  ///< reason -> rows
  std::map<std::string, std::string> examples;   ///< reason -> first row: "line 17: latency 0"
};

struct KernelTable {
  std::vector<KernelSamples> kernels;  ///< sorted by key; rows sorted by columns
  TableReport report;
};

/// Reads a table (CSV, gzip or not) row by row; memory grows with the kept rows only, of which there may be
/// `most_rows`.
///
/// @param layout     nullopt: from the file's name ("moe.vllm-0.24.0.csv.gz") and its columns.
/// @param framework  e.g. "vllm"; empty: from the file's name.
/// A file of curves, as a profile keeps its samples, is read too.
/// @throws InputError naming line and column: a missing column, a line with another number of cells, text where a
/// number must be, more rows than `most_rows`; what is no table. Rows that no machine can have measured (latency not
/// above zero, a value out of its range) are left out and counted.
KernelTable read_kernel_table(const std::string& path, const std::string& layout, const std::string& framework,
                              const std::string& version, std::int64_t most_rows = 5'000'000);

/// "moe.vllm-0.24.0.csv.gz" -> moe, vllm, 0.24.0; parts that the name does not say stay empty.
struct TableName {
  std::string layout;
  std::string framework;
  std::string version;
};
TableName parse_table_name(const std::string& path);

/// Splits "vllm-0.24.0" at the first "-" before a digit.
std::pair<std::string, std::string> split_backend(std::string_view text);

/// samples/<layout>.<framework>-<version>.csv.gz of a profile: one line a curve. Columns: kernel, dtype, the layout's
/// columns that are no position, the position columns (values separated by spaces), ln_latency_steps (ln of the latency
/// in seconds, in steps of 0.0005; the first value, then differences).
std::string curves_text(const std::vector<KernelSamples>& kernels);
std::vector<KernelSamples> parse_curves_text(std::string_view text, const std::string& where, const TableName& name);

/// All kernel curves of a profile folder (samples of `moecast profile` are left alone).
std::vector<KernelSamples> read_kernel_samples(const std::string& folder);
/// Writes one file a (layout, framework, version), each atomically.
void write_kernel_samples(const std::string& folder, const std::vector<KernelSamples>& kernels);

/// Adds rows to kernels of the same key and sorts; of rows with the same columns the last one counts.
/// @param report  counts what was there twice; may be null.
void merge_kernel_samples(std::vector<KernelSamples>& into, std::vector<KernelSamples> more,
                          TableReport* report = nullptr);

/// These rows only.
KernelSamples pick_rows(const KernelSamples& samples, const std::vector<std::size_t>& rows);

/// Row indices of each curve (equal values of all columns that are no position), rows of a curve in ascending position.
std::vector<std::vector<std::size_t>> curves_of(const KernelSamples& samples);

}  // namespace moecast
