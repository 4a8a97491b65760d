#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "hwprofiles/kernel_samples.h"
#include "models/core/csv_line.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"

namespace moecast {
namespace {

constexpr std::string_view kEplbSuffix = "_eplb";

/// Where the columns of a layout stand in a file.
struct ColumnMap {
  const KernelLayout* layout = nullptr;
  std::vector<std::size_t> kernel, dtype;
  std::vector<std::optional<std::size_t>> numbers;
  std::vector<std::size_t> latencies;
  std::size_t count = 0;
};

std::optional<std::size_t> find(const std::vector<std::string_view>& header, std::string_view name) {
  const auto found = std::find(header.begin(), header.end(), name);
  if (found == header.end()) return std::nullopt;
  return static_cast<std::size_t>(found - header.begin());
}

/// First column of the layout that the header lacks; empty when it has all.
std::string_view missing_column(const KernelLayout& layout, const std::vector<std::string_view>& header) {
  for (const auto* names : {&layout.kernel, &layout.dtype}) {
    for (const std::string_view name : *names) {
      if (!find(header, name)) return name;
    }
  }
  for (const TableColumn& column : layout.numbers) {
    if (!column.absent && !find(header, column.file_column())) return column.file_column();
  }
  for (const LatencyColumn& latency : layout.latencies) {
    if (!find(header, latency.name)) return latency.name;
  }
  return {};
}

const KernelLayout& choose_layout(const std::string& name, const std::vector<std::string_view>& header,
                                  const std::string& path) {
  if (!name.empty()) {
    if (const KernelLayout* layout = find_kernel_layout(name)) return *layout;
    std::vector<std::string_view> known;
    for (const KernelLayout& layout : kernel_layouts()) known.push_back(layout.name);
    const auto near = nearest_name(name, known);
    throw InputError(path, "\"" + name + "\" is not a kind of table",
                     near ? "did you mean \"" + *near + "\"?" : "moe, gemm, context_attention, ...");
  }
  std::vector<const KernelLayout*> fitting;
  for (const KernelLayout& layout : kernel_layouts()) {
    if (missing_column(layout, header).empty()) fitting.push_back(&layout);
  }
  if (fitting.empty()) {
    throw InputError(path + ": line 1", "no known kind of table has these columns",
                     "name the kind: --operator moe, gemm, context_attention, ...");
  }
  // The most special kind: wideep tables have all columns of plain ones.
  return **std::max_element(fitting.begin(), fitting.end(), [](const auto* a, const auto* b) {
    return a->numbers.size() + a->kernel.size() < b->numbers.size() + b->kernel.size();
  });
}

ColumnMap map_columns(const KernelLayout& layout, const std::vector<std::string_view>& header,
                      const std::string& path) {
  const std::string_view missing = missing_column(layout, header);
  if (!missing.empty()) {
    throw InputError(path + ": line 1", "has no column \"" + std::string(missing) + "\", which a table of " +
                                            std::string(layout.name) + " needs");
  }
  ColumnMap map;
  map.layout = &layout;
  for (const std::string_view name : layout.kernel) map.kernel.push_back(*find(header, name));
  for (const std::string_view name : layout.dtype) map.dtype.push_back(*find(header, name));
  for (const TableColumn& column : layout.numbers) map.numbers.push_back(find(header, column.file_column()));
  for (const LatencyColumn& latency : layout.latencies) map.latencies.push_back(*find(header, latency.name));
  map.count = header.size();
  return map;
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

class TableReader {
 public:
  TableReader(const std::string& path, std::string layout, std::string framework, std::string version,
              std::int64_t most_rows)
      : path_(path),
        layout_(std::move(layout)),
        framework_(std::move(framework)),
        version_(std::move(version)),
        most_rows_(most_rows) {}

  KernelTable read() {
    read_lines(path_, [this](std::uint64_t number, std::string_view line) {
      if (map_.layout == nullptr) {
        const auto& header = line_.split(line);
        map_ = map_columns(choose_layout(layout_, header, path_), header, path_);
        row_.resize(map_.numbers.size());
      } else if (!line.empty()) {
        const auto& cells = line_.split(line);
        if (report_.rows == 0 && layout_.empty()) tell_phases_apart(cells);
        take(number, cells);
      }
    });
    if (map_.layout == nullptr) throw InputError(path_, "is empty", "a table starts with the names of its columns");
    KernelTable table;
    table.report = std::move(report_);
    merge_kernel_samples(table.kernels, std::move(kernels_), &table.report);
    table.report.kept -= table.report.duplicates;
    return table;
  }

 private:
  [[nodiscard]] std::string place(std::uint64_t number, std::string_view column) const {
    return path_ + ": line " + std::to_string(number) + ", column " + std::string(column);
  }

  /// Tables of attention over a prompt and of one step have the same columns: a step has one new token and a past.
  void tell_phases_apart(const std::vector<std::string_view>& cells) {
    constexpr std::string_view kPrompt = "context_";
    const std::string name(map_.layout->name);
    const auto isl = std::find_if(map_.layout->numbers.begin(), map_.layout->numbers.end(),
                                  [](const TableColumn& column) { return column.name == "isl"; });
    if (!name.starts_with(kPrompt) || isl == map_.layout->numbers.end()) return;
    const auto value = [&](std::size_t column) {
      const auto& at = map_.numbers[column];
      return at && *at < cells.size() ? parse_number(cells[*at]).value_or(0) : 0;
    };
    if (value(map_.layout->column("isl")) != 1 || value(map_.layout->column("step")) < 1) return;
    const KernelLayout* other = find_kernel_layout("generation_" + name.substr(kPrompt.size()));
    if (other != nullptr) map_.layout = other;
  }

  void leave_out(const std::string& reason, std::uint64_t number, std::string_view text) {
    if (++report_.left_out[reason] == 1) {
      report_.examples[reason] = "line " + std::to_string(number) + ": " + std::string(text.substr(0, 40));
    }
  }

  void take(std::uint64_t number, const std::vector<std::string_view>& cells) {
    ++report_.rows;
    if (cells.size() != map_.count) {
      throw InputError(path_ + ": line " + std::to_string(number),
                       "has " + std::to_string(cells.size()) + " cells, the header has " + std::to_string(map_.count));
    }
    KernelKey key{framework_, version_, std::string(map_.layout->name), {}, {}};
    key.kernel = joined(cells, map_.kernel, "/");
    key.dtype = joined(cells, map_.dtype, "+");
    if (!take_numbers(number, cells, key)) return;
    for (std::size_t i = 0; i < map_.latencies.size(); ++i) {
      take_latency(number, cells[map_.latencies[i]], map_.layout->latencies[i], key);
    }
  }

  void take_latency(std::uint64_t number, std::string_view text, const LatencyColumn& column, KernelKey key) {
    if (!column.part.empty()) key.kernel += "/" + std::string(column.part);
    const std::optional<double> latency = parse_number(text);
    if (!latency) {
      throw InputError(place(number, column.name), "\"" + std::string(text.substr(0, 40)) + "\" is not a number");
    }
    if (!(*latency > 0) || !std::isfinite(*latency)) {
      return leave_out((column.part.empty() ? std::string("latency") : std::string(column.name)) + " not above zero",
                       number, text);
    }
    const double seconds = *latency * column.unit_s;
    if (seconds > 1e4) return leave_out("latency above 10,000 s", number, text);
    if (report_.kept >= most_rows_) {
      throw InputError(path_ + ": line " + std::to_string(number), "more than " + std::to_string(most_rows_) + " rows",
                       "split the table by kernel");
    }
    ++report_.kept;
    store(std::move(key), seconds);
  }

  static std::string joined(const std::vector<std::string_view>& cells, const std::vector<std::size_t>& columns,
                            std::string_view separator) {
    std::string text;
    for (const std::size_t column : columns) {
      if (!text.empty()) text += separator;
      text += cells[column];
    }
    return text;
  }

  bool take_numbers(std::uint64_t number, const std::vector<std::string_view>& cells, KernelKey& key) {
    const KernelLayout& layout = *map_.layout;
    for (std::size_t c = 0; c < row_.size(); ++c) {
      const TableColumn& column = layout.numbers[c];
      if (!map_.numbers[c]) {
        row_[c] = *column.absent;
        continue;
      }
      std::string_view text = cells[*map_.numbers[c]];
      std::optional<double> value;
      if (column.name == kDistributionColumn) {
        if (text.ends_with(kEplbSuffix)) {
          text.remove_suffix(kEplbSuffix.size());
          key.kernel += "/eplb";
        }
        value = parse_distribution(text);
        if (!value) {
          leave_out("unknown distribution", number, text);
          return false;
        }
      } else {
        value = column.parse != nullptr ? column.parse(text) : parse_number(text);
      }
      if (!value && column.parse != nullptr) {
        leave_out("unknown " + std::string(column.file_column()), number, text);
        return false;
      }
      if (!value) {
        throw InputError(place(number, column.name), "\"" + std::string(text.substr(0, 40)) + "\" is not a number");
      }
      if (!(*value >= column.low) || *value > column.high) {
        leave_out(std::string(column.name) + " out of range", number, text);
        return false;
      }
      row_[c] = *value;
    }
    complete_communication(layout);
    return complete_moe(number);
  }

  /// What the tables of dispatch and combine do not say.
  void complete_communication(const KernelLayout& layout) {
    const auto fill = [&](std::string_view name, double value) {
      double& at = row_[layout.column(name)];
      if (at == 0) at = value;
    };
    if (layout.name == "wideep_deepep_ll") {
      fill(kSentRowsColumn,
           sent_rows_of(framework_, version_, row_[layout.column("num_token")], row_[layout.column("num_topk")]));
    }
    if (layout.name == "nvlink_one_sided") {
      fill(kCopiesColumn, std::min(row_[layout.column("topk")], row_[layout.column("ep_size")]));
    }
  }

  /// Checks that no single column shows, and what the tables do not say.
  bool complete_moe(std::uint64_t number) {
    const KernelLayout& layout = *map_.layout;
    if (layout.kind != OperatorKind::fused_moe || layout.name == "moe_activated_experts") return true;
    const double experts = row_[layout.column("num_experts")];
    const double top_k = row_[layout.column("topk")];
    for (const char* name : {"num_tokens", "hidden_size", "inter_size", "topk", "num_experts"}) {
      const double value = row_[layout.column(name)];
      if (value == std::floor(value)) continue;
      leave_out(std::string(name) + " is no whole number", number, std::to_string(value));
      return false;
    }
    if (top_k > experts) {
      leave_out("topk above num_experts", number, std::to_string(top_k));
      return false;
    }
    if (std::fmod(experts, row_[layout.column("moe_ep_size")]) != 0) {
      leave_out("num_experts does not divide by moe_ep_size", number, std::to_string(experts));
      return false;
    }
    return true;
  }

  void store(KernelKey key, double seconds) {
    const std::string text = key.kernel + "\n" + key.dtype;
    const auto [found, fresh] = index_.emplace(text, kernels_.size());
    if (fresh) kernels_.push_back({std::move(key), std::vector<std::vector<double>>(row_.size()), {}});
    KernelSamples& samples = kernels_[found->second];
    const KernelLayout& layout = *map_.layout;
    if (layout.kind == OperatorKind::fused_moe && layout.name != "moe_activated_experts") {
      double& matrices = row_[layout.column(kMatricesColumn)];
      if (matrices == 0) {
        matrices =
            matrices_of(framework_, samples.key.kernel, row_[layout.column("inter_size")], row_[layout.column("topk")]);
      }
    }
    for (std::size_t c = 0; c < row_.size(); ++c) samples.columns[c].push_back(row_[c]);
    samples.latency_s.push_back(seconds);
  }

  const std::string& path_;
  std::string layout_, framework_, version_;
  std::int64_t most_rows_;
  CsvLine line_;
  ColumnMap map_;
  std::vector<double> row_;
  TableReport report_;
  std::vector<KernelSamples> kernels_;
  std::unordered_map<std::string, std::size_t> index_;
};

}  // namespace

namespace {

constexpr std::string_view kCurvesStart = "kernel,dtype,";
constexpr std::string_view kCurvesEnd = ",ln_latency_steps";

std::string first_line(const std::string& path) {
  std::string first;
  read_lines_while(path, [&](std::uint64_t /*number*/, std::string_view line) {
    first = line;
    return first.empty();
  });
  return first;
}

/// Curves of a profile's samples, which import wrote.
KernelTable read_curves(const std::string& path, const TableName& name, std::int64_t most_rows) {
  if (name.layout.empty()) {
    throw InputError(path, "holds curves of a profile, and its name does not say of which kind of kernel",
                     "name the kind: --operator nccl, moe, gemm, ...");
  }
  KernelTable table;
  merge_kernel_samples(table.kernels, parse_curves_text(read_text_file(path), path, name));
  for (const KernelSamples& samples : table.kernels) table.report.rows += static_cast<std::int64_t>(samples.size());
  if (table.report.rows > most_rows) {
    throw InputError(path, "more than " + std::to_string(most_rows) + " rows", "split the table by kernel");
  }
  table.report.kept = table.report.rows;
  return table;
}

}  // namespace

KernelTable read_kernel_table(const std::string& path, const std::string& layout, const std::string& framework,
                              const std::string& version, std::int64_t most_rows) {
  const TableName name = parse_table_name(path);
  const bool own = !framework.empty();
  const std::string first = first_line(path);
  if (first.starts_with(kCurvesStart) && first.ends_with(kCurvesEnd)) {
    return read_curves(
        path, {layout.empty() ? name.layout : layout, own ? framework : name.framework, own ? version : name.version},
        most_rows);
  }
  if (first.starts_with('#') || first.find("nccl-tests") != std::string::npos) {
    throw InputError(path, "is no table of columns; it looks like what a program of nccl-tests printed",
                     "take it into a profile first: moecast import nccl-tests " + path +
                         " --system NAME, then give the profile's samples/nccl.*.csv.gz");
  }
  return TableReader(path, layout.empty() ? name.layout : layout, own ? framework : name.framework,
                     own ? version : name.version, most_rows)
      .read();
}

}  // namespace moecast
