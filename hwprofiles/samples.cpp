#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>

#include "hwprofiles/profile.h"
#include "models/core/csv_line.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

constexpr const char* kDamagedRow = "remove the row, or measure again: moecast profile";

constexpr std::string_view kRawColumn = "raw_samples";
constexpr std::size_t kRawFields = 5;

/// @param raw  with the last column, which profiles made before it was there do not have.
std::vector<std::string> column_names(OperatorKind kind, bool raw = true) {
  std::vector<std::string> names{"backend", "dtype", "threads"};
  for (const ShapeColumn& column : shape_columns(kind)) names.emplace_back(column.name);
  for (const char* name : {"footprint_bytes", "input_footprint_bytes", "output_footprint_bytes", "latency_s", "low_s",
                           "high_s", "samples", "preempted", "round_s"}) {
    names.emplace_back(name);
  }
  if (raw) names.emplace_back(kRawColumn);
  return names;
}

/// One cell of a row, with everything that an error has to say.
struct Cell {
  std::string_view text;
  const std::string& where;
  std::size_t line;
  std::string_view column;

  [[noreturn]] void fail(const std::string& problem) const {
    throw InputError(where + ": line " + std::to_string(line) + ", column " + std::string(column),
                     "\"" + std::string(text.substr(0, 40)) + "\" " + problem, kDamagedRow);
  }
  [[nodiscard]] double number(double low) const { return number_of(text, low); }
  [[nodiscard]] double number_of(std::string_view part, double low) const {
    double value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || !std::isfinite(value)) fail("is not a number");
    if (value < low) fail("is below " + std::to_string(low));
    return value;
  }
  [[nodiscard]] std::int64_t integer(std::int64_t low) const { return integer_of(text, low); }
  [[nodiscard]] std::int64_t integer_of(std::string_view part, std::int64_t low) const {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size()) fail("is not a whole number");
    if (value < low) fail("is below " + std::to_string(low));
    return value;
  }
  [[nodiscard]] Bytes bytes() const {
    const double value = number(0);
    if (value > 1e18) fail("is more bytes than any machine holds");
    return Bytes(value);
  }
  [[nodiscard]] Seconds latency() const {
    const double value = number(0);
    if (value <= 0) fail("is not above zero: nothing takes no time");
    return Seconds(value);
  }
};

/// "round:calls:wall_s:cpu_s:switches", one a sample, spaces between.
std::vector<RawSample> parse_raw(const Cell& cell) {
  std::vector<RawSample> raw;
  if (cell.text.empty()) return raw;
  for (const std::string_view item : split_text(cell.text, ' ')) {
    const auto fields = split_text(item, ':');
    if (fields.size() != kRawFields) cell.fail("is not a list of round:calls:wall_s:cpu_s:switches");
    const auto count = [&](std::size_t i, std::int64_t low) {
      return std::min<std::int64_t>(cell.integer_of(fields[i], low), 1 << 30);
    };
    raw.push_back({static_cast<int>(count(0, 0)), static_cast<int>(count(1, 1)), cell.number_of(fields[2], 0),
                   cell.number_of(fields[3], 0), count(4, 0)});
  }
  return raw;
}

Measurement parse_row(OperatorKind kind, const std::vector<std::string_view>& cells,
                      const std::vector<std::string>& names, const std::string& where, std::size_t line) {
  if (cells.size() != names.size()) {
    throw InputError(where + ": line " + std::to_string(line),
                     "has " + std::to_string(cells.size()) + " columns, expected " + std::to_string(names.size()),
                     kDamagedRow);
  }
  std::size_t at = 0;
  const auto next = [&]() -> Cell {
    const std::size_t i = at++;
    return {cells[i], where, line, names[i]};
  };
  Measurement row;
  row.point.kind = kind;
  row.point.backend = std::string(next().text);
  const Cell dtype = next();
  const auto parsed = parse_dtype(dtype.text);
  if (!parsed) dtype.fail("is not a known dtype");
  row.point.dtype = *parsed;
  row.point.threads = static_cast<int>(std::min<std::int64_t>(next().integer(1), 1 << 20));
  for (const ShapeColumn& column : shape_columns(kind)) row.point.shape.*column.field = next().integer(0);
  row.point.footprint = next().bytes();
  row.point.input_footprint = next().bytes();
  row.point.output_footprint = next().bytes();
  const Cell latency = next();
  row.latency = latency.latency();
  row.low = next().latency();
  row.high = next().latency();
  if (row.low > row.latency || row.high < row.latency) latency.fail("lies outside its interval");
  row.samples = static_cast<int>(std::min<std::int64_t>(next().integer(1), 1 << 30));
  row.preempted = static_cast<int>(std::min<std::int64_t>(next().integer(0), 1 << 30));
  const Cell rounds = next();
  if (!rounds.text.empty()) {
    for (const std::string_view part : split_text(rounds.text, ' ')) row.round_s.push_back(rounds.number_of(part, 0));
  }
  if (at < names.size()) row.raw = parse_raw(next());
  return row;
}

std::string exact_text(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value, std::chars_format::general, 6);
  return {text, error == std::errc() ? end : text};
}

std::string row_text(OperatorKind kind, const Measurement& row) {
  std::string text =
      row.point.backend + ',' + std::string(to_string(row.point.dtype)) + ',' + std::to_string(row.point.threads);
  for (const ShapeColumn& column : shape_columns(kind)) text += ',' + std::to_string(row.point.shape.*column.field);
  for (const Bytes value : {row.point.footprint, row.point.input_footprint, row.point.output_footprint}) {
    text += ',' + std::to_string(static_cast<std::int64_t>(value.value()));
  }
  for (const Seconds value : {row.latency, row.low, row.high}) text += ',' + exact_text(value.value());
  text += ',' + std::to_string(row.samples) + ',' + std::to_string(row.preempted) + ',';
  for (std::size_t i = 0; i < row.round_s.size(); ++i) {
    if (i > 0) text += ' ';
    text += exact_text(row.round_s[i]);
  }
  text += ',';
  for (std::size_t i = 0; i < row.raw.size(); ++i) {
    const RawSample& sample = row.raw[i];
    if (i > 0) text += ' ';
    text += std::to_string(sample.round) + ':' + std::to_string(sample.calls) + ':' + exact_text(sample.wall_s) + ':' +
            exact_text(sample.cpu_s) + ':' + std::to_string(sample.involuntary_switches);
  }
  return text + '\n';
}

std::string file_name(const std::string& folder, OperatorKind kind) {
  return folder + "/samples/" + std::string(to_string(kind)) + ".csv.gz";
}

}  // namespace

std::vector<Measurement> parse_samples_text(OperatorKind kind, std::string_view text, const std::string& where) {
  std::vector<std::string> names = column_names(kind);
  std::vector<Measurement> rows;
  std::size_t line = 0;
  for (std::string_view row : split_text(text, '\n')) {
    ++line;
    if (row.ends_with('\r')) row.remove_suffix(1);
    if (row.empty()) continue;
    const auto cells = split_text(row, ',');
    if (line == 1) {
      if (cells.size() + 1 == names.size()) names = column_names(kind, false);
      if (!std::equal(cells.begin(), cells.end(), names.begin(), names.end())) {
        std::string expected;
        for (const std::string& name : names) expected += (expected.empty() ? "" : ",") + name;
        throw InputError(where + ": line 1", "has other columns than a table of " + std::string(to_string(kind)),
                         "expected " + expected);
      }
      continue;
    }
    rows.push_back(parse_row(kind, cells, names, where, line));
  }
  if (line == 0 || text.empty()) throw InputError(where, "is empty", "moecast profile measures it again");
  return rows;
}

std::string samples_text(OperatorKind kind, const std::vector<Measurement>& measurements) {
  std::string text;
  for (const std::string& name : column_names(kind)) text += (text.empty() ? "" : ",") + name;
  text += '\n';
  for (const Measurement& row : measurements) {
    if (row.point.kind == kind) text += row_text(kind, row);
  }
  return text;
}

std::vector<Measurement> read_samples(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code none;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder + "/samples", none)) {
    const std::string name = entry.path().filename().string();
    // Names with a further dot are curves of imported tables: kernel_samples.h.
    const bool one_dot = name.find('.') + 7 == name.size();
    if (name.ends_with(".csv.gz") && one_dot) names.push_back(name.substr(0, name.size() - 7));
  }
  std::sort(names.begin(), names.end());
  std::vector<Measurement> all;
  for (const std::string& name : names) {
    const auto kind = parse_operator_kind(name);
    const std::string path = folder + "/samples/" + name + ".csv.gz";
    if (!kind) throw InputError(path, "\"" + name + "\" is not an operator", "move the file out of the folder");
    auto rows = parse_samples_text(*kind, read_text_file(path), path);
    all.insert(all.end(), std::make_move_iterator(rows.begin()), std::make_move_iterator(rows.end()));
  }
  return all;
}

void write_samples(const std::string& folder, const std::vector<Measurement>& measurements) {
  std::error_code failed;
  std::filesystem::create_directories(folder + "/samples", failed);
  if (failed) throw DeviceError(folder + "/samples", "cannot be made: " + failed.message());
  std::map<OperatorKind, int> kinds;
  for (const Measurement& row : measurements) ++kinds[row.point.kind];
  for (const auto& [kind, count] : kinds) {
    write_file_atomically(file_name(folder, kind), samples_text(kind, measurements));
  }
}

}  // namespace moecast
