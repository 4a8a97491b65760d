#include "tools/cli/placement_option.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"

namespace moecast {
namespace {

constexpr const char* kPlacementFlag = "--placement";

/// "0,0,1+2": ranks of each expert, copies joined by plus signs.
std::vector<std::vector<std::int32_t>> parse_map(const std::string& text, int ranks) {
  std::vector<std::vector<std::int32_t>> ranks_of;
  for (const std::string& expert : split_list(text, kPlacementFlag)) {
    ranks_of.emplace_back();
    for (std::size_t start = 0; start <= expert.size();) {
      const std::size_t end = std::min(expert.find('+', start), expert.size());
      ranks_of.back().push_back(
          static_cast<std::int32_t>(parse_count(expert.substr(start, end - start), kPlacementFlag, 0, ranks - 1)));
      start = end + 1;
    }
  }
  return ranks_of;
}

[[noreturn]] void refuse_word(const std::string& word, bool with_servers) {
  std::vector<std::string_view> words{"contiguous", "round-robin", "node-aware", "balanced", "map"};
  if (with_servers) words.emplace_back("servers");
  const auto near = nearest_name(word, words);
  throw UsageError(
      kPlacementFlag, fmt::format("\"{}\" is not known", word),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(words, ", ")));
}

}  // namespace

PlacementSpec parse_placement(const std::string& text, int ranks, bool with_servers) {
  const std::size_t colon = text.find(':');
  const std::string word = text.substr(0, colon);
  const std::string argument = colon == std::string::npos ? "" : text.substr(colon + 1);
  const auto kind = find_placement_kind(word);
  if (!kind || (*kind == PlacementKind::servers && !with_servers)) refuse_word(word, with_servers);
  PlacementSpec spec = *kind;
  if (*kind == PlacementKind::servers) {
    spec.servers = static_cast<int>(parse_count(argument, kPlacementFlag, 1, ranks));
  } else if (*kind == PlacementKind::map) {
    spec.map = parse_map(argument, ranks);
  } else if (!argument.empty()) {
    throw UsageError(kPlacementFlag, fmt::format("\"{}\" takes no parameter", text), "leave it out");
  }
  return spec;
}

}  // namespace moecast
