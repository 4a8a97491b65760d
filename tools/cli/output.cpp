#include "tools/cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::array<std::pair<std::string_view, Format>, 5> kFormats{{{"table", Format::table},
                                                                       {"md", Format::md},
                                                                       {"csv", Format::csv},
                                                                       {"json", Format::json},
                                                                       {"jsonl", Format::jsonl}}};

/// Columns that text takes on a terminal: code points, which is right for everything that is printed here.
std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool looks_numeric(const std::string& cell) {
  return cell.empty() || cell.starts_with("–") || cell[0] == '-' || cell[0] == '+' ||
         (cell[0] >= '0' && cell[0] <= '9');
}

void flatten(const Json& value, const std::string& prefix, Json& out) {
  for (const auto& [key, child] : value.items()) {
    const std::string name = prefix.empty() ? key : prefix + "." + key;
    if (child.is_object()) {
      flatten(child, name, out);
    } else if (!child.is_array()) {
      out[name] = child;
    }
  }
}

std::string csv_cell(const Json& value) {
  if (value.is_null()) return {};
  if (!value.is_string()) return dump_json_line(value);
  const auto text = value.get<std::string>();
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace

Format parse_format(std::string_view text) {
  std::vector<std::string_view> names;
  for (const auto& [name, format] : kFormats) {
    if (name == text) return format;
    names.push_back(name);
  }
  const auto near = nearest_name(text, names);
  throw UsageError("--format", fmt::format("\"{}\" is not a format", text),
                   near ? fmt::format("did you mean \"{}\"?", *near) : "formats: table, md, csv, json, jsonl");
}

std::string render_table(const Table& table, Format format) {
  const std::size_t columns = table.columns.size();
  std::vector<std::size_t> width(columns);
  std::vector<bool> right(columns, true);
  for (std::size_t c = 0; c < columns; ++c) {
    width[c] = std::max<std::size_t>(display_width(table.columns[c]), format == Format::md ? 3 : 0);
    for (const auto& row : table.rows) {
      width[c] = std::max(width[c], display_width(row[c]));
      right[c] = right[c] && looks_numeric(row[c]);
    }
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (std::size_t c = 0; c < columns; ++c) {
      const std::string padding(width[c] - display_width(cells[c]), ' ');
      out += format == Format::md ? (c == 0 ? "| " : " | ") : (c == 0 ? "" : "  ");
      out += right[c] ? padding + cells[c] : cells[c] + padding;
    }
    if (format == Format::md) return out + " |\n";
    while (out.ends_with(' ')) out.pop_back();
    return out + "\n";
  };
  std::string out = line(table.columns);
  if (format == Format::md) {
    for (std::size_t c = 0; c < columns; ++c) {
      out += (c == 0 ? "| " : " | ") + std::string(width[c] - 1, '-') + (right[c] ? ":" : "-");
    }
    out += " |\n";
  }
  for (const auto& row : table.rows) out += line(row);
  return out;
}

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::string render_csv(const std::vector<Json>& records) {
  if (records.empty()) return "";
  std::vector<Json> flat;
  std::vector<std::string> columns;
  for (const Json& record : records) {
    Json row = Json::object();
    flatten(record, "", row);
    for (const auto& [key, value] : row.items()) {
      if (std::find(columns.begin(), columns.end(), key) == columns.end()) columns.push_back(key);
    }
    flat.push_back(std::move(row));
  }
  std::string out = fmt::format("{}\n", fmt::join(columns, ","));
  for (const Json& row : flat) {
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (c > 0) out += ',';
      if (const auto cell = row.find(columns[c]); cell != row.end()) out += csv_cell(*cell);
    }
    out += '\n';
  }
  return out;
}

std::string render_records(const std::vector<Json>& records, Format format, bool single) {
  if (format == Format::csv) return render_csv(records);
  if (format == Format::jsonl) {
    std::string out;
    for (const Json& record : records) out += dump_json_line(record) + "\n";
    return out;
  }
  return dump_json(single && records.size() == 1 ? records.front() : Json(records));
}

void write_stdout(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written) {
    const int reason = errno;
    throw DeviceError("standard output", fmt::format("cannot be written: {}", std::strerror(reason)),
                      reason == ENOSPC ? "free some disk space" : "");
  }
}

std::string printable(std::string_view text) {
  std::string safe(text);
  for (char& c : safe) {
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f) c = '?';
  }
  return safe;
}

void warn(std::string_view text) { fmt::print(stderr, "warning: {}\n", printable(text)); }
void note(std::string_view text) { fmt::print(stderr, "{}\n", printable(text)); }

bool terminal_allows_colour() {
  const char* no_colour = std::getenv("NO_COLOR");
  return isatty(STDERR_FILENO) == 1 && (no_colour == nullptr || *no_colour == '\0');
}

}  // namespace moecast
