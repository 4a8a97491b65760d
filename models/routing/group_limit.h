#pragma once
#include <compare>

namespace moecast {

/// Group-limited routing: a token uses experts of `kept` of `groups` equal groups of consecutive experts.
struct GroupLimit {
  int groups = 1;
  int kept = 1;
  [[nodiscard]] bool limits() const { return kept < groups; }
  friend auto operator<=>(const GroupLimit&, const GroupLimit&) = default;
};

}  // namespace moecast
