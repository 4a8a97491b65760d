#include "hwprofiles/csv_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "models/core/csv_line.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

/// The beginning of a cell, fit for a terminal.
std::string shown(std::string_view cell) {
  std::string text(cell.substr(0, 40));
  std::ranges::replace_if(text, [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace

double CsvRow::number(std::size_t column, double low, double high) const {
  const std::string_view cell = cells_[column];
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size() || !std::isfinite(value) || value < low ||
      value > high) {
    throw InputError(where_, fmt::format("column {}: \"{}\" is no number from {:g} to {:g}", columns_[column],
                                         shown(cell), low, high));
  }
  return value;
}

double CsvRow::number_or(std::size_t column, double low, double high, double absent) const {
  return cells_[column].empty() ? absent : number(column, low, high);
}

void read_csv_table(const std::string& path, std::span<const std::string_view> columns,
                    const std::function<void(const CsvRow&)>& row, std::int64_t most_rows) {
  CsvLine line;
  std::vector<std::size_t> places;  // of a missing column: npos
  std::vector<std::string_view> cells(columns.size());
  std::size_t width = 0;
  std::int64_t rows = 0;
  read_lines(path, [&](std::uint64_t number, std::string_view content) {
    const std::string where = fmt::format("{}:{}", path, number);
    if (content.empty() || content == "\r") return;
    const std::vector<std::string_view>& all = line.split(content);
    if (places.empty()) {
      width = all.size();
      for (const std::string_view asked : columns) {
        const bool optional = asked.starts_with('?');
        const std::string_view column = asked.substr(optional ? 1 : 0);
        const auto found = std::ranges::find(all, column);
        if (found == all.end() && optional) {
          places.push_back(std::string_view::npos);
          continue;
        }
        if (found == all.end()) throw InputError(where, fmt::format("has no column {}", column));
        if (std::ranges::count(all, column) > 1) {
          throw InputError(where, fmt::format("has the column {} twice", column), "keep one of them");
        }
        places.push_back(static_cast<std::size_t>(found - all.begin()));
      }
      return;
    }
    if (all.size() != width) {
      throw InputError(where, fmt::format("has {} cells, the header {}", all.size(), width), "is the file cut short?");
    }
    if (++rows > most_rows) throw InputError(where, fmt::format("is beyond {} rows", most_rows));
    for (std::size_t i = 0; i < places.size(); ++i) {
      cells[i] = places[i] == std::string_view::npos ? std::string_view() : all[places[i]];
    }
    row(CsvRow(columns, cells, where));
  });
  if (rows == 0) throw InputError(path, "holds no row");
}

}  // namespace moecast
