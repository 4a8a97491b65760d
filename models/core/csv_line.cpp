#include "models/core/csv_line.h"

namespace moecast {

std::vector<std::string_view> split_text(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

const std::vector<std::string_view>& CsvLine::split(std::string_view line) {
  cells_.clear();
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.find('"') == std::string_view::npos) {
    while (true) {
      const std::size_t end = line.find(',');
      cells_.push_back(line.substr(0, end));
      if (end == std::string_view::npos) return cells_;
      line.remove_prefix(end + 1);
    }
  }
  return split_quoted(line);
}

const std::vector<std::string_view>& CsvLine::split_quoted(std::string_view line) {
  storage_.assign(1, {});
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      storage_.back() += '"';
      ++i;
    } else if (line[i] == '"') {
      quoted = !quoted;
    } else if (line[i] == ',' && !quoted) {
      storage_.emplace_back();
    } else {
      storage_.back() += line[i];
    }
  }
  for (const std::string& cell : storage_) cells_.emplace_back(cell);
  return cells_;
}

}  // namespace moecast
