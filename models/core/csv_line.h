#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace moecast {

/// Parts of a text between separators, without regard to quotes; one part where there is none.
std::vector<std::string_view> split_text(std::string_view text, char separator);

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
