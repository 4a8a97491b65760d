#pragma once
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moecast {

/// A row of a CSV file under reading, by the columns that were asked for.
class CsvRow {
 public:
  CsvRow(std::span<const std::string_view> columns, std::span<const std::string_view> cells, std::string where)
      : columns_(columns), cells_(cells), where_(std::move(where)) {}
  [[nodiscard]] std::string_view text(std::size_t column) const { return cells_[column]; }
  /// @throws InputError naming line and column unless it is a finite number in [low, high].
  [[nodiscard]] double number(std::size_t column, double low, double high) const;
  /// The same; `absent` where the cell is empty.
  [[nodiscard]] double number_or(std::size_t column, double low, double high, double absent) const;
  [[nodiscard]] const std::string& where() const { return where_; }

 private:
  std::span<const std::string_view> columns_;
  std::span<const std::string_view> cells_;  ///< in the order of `columns`
  std::string where_;
};

/// Calls `row` for each line of a CSV file (gzip or not) whose header has these columns. Columns whose name begins with
/// a question mark may be missing, and are empty then.
/// @throws InputError naming the line: a missing column, a line with another number of cells, no row at all, more than
/// `most_rows`.
void read_csv_table(const std::string& path, std::span<const std::string_view> columns,
                    const std::function<void(const CsvRow&)>& row, std::int64_t most_rows = 5'000'000);

}  // namespace moecast
