#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace moecast {

/// Cells of a CSV line; a quoted cell may hold commas and doubled quotes. The views live until the next line, and as
/// long as the line.
class CsvLine {
 public:
  const std::vector<std::string_view>& split(std::string_view line);

 private:
  const std::vector<std::string_view>& split_quoted(std::string_view line);

  std::vector<std::string> storage_;
  std::vector<std::string_view> cells_;
};

}  // namespace moecast
