#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/core/json.h"

namespace moecast {

/// table and md are for people (scaled units); csv, json and jsonl are for programs (SI units, names of DESIGN).
enum class Format { table, md, csv, json, jsonl };

/// @throws UsageError on another word, with the nearest known one.
Format parse_format(std::string_view text);

/// Cells as text. Columns whose cells all start with a digit or a dash are aligned right.
struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};

/// Aligned columns (format table) or a Markdown table (format md); ends with a newline.
std::string render_table(const Table& table, Format format);

/// One line a record after a header line; nested objects become dotted columns, arrays are left out.
/// Cells with commas or quotes are quoted; null is an empty cell.
std::string render_csv(const std::vector<Json>& records);

/// Records as csv, jsonl, or json: one object when `single`, else an array.
std::string render_records(const std::vector<Json>& records, Format format, bool single);

/// What is unknown is null.
Json number_or_null(const std::optional<double>& value);

/// @throws DeviceError when standard output cannot take it (full disk, closed pipe).
void write_stdout(std::string_view text);

/// `text` without control characters, which a hostile file could use to steer a terminal: each becomes "?".
std::string printable(std::string_view text);

/// "warning: ..." on standard error.
void warn(std::string_view text);
/// A line on standard error.
void note(std::string_view text);

/// True if standard error is a terminal and NO_COLOR is not set.
bool terminal_allows_colour();

}  // namespace moecast
