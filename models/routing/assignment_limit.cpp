#include <algorithm>
#include <numeric>

#include "models/routing/assignment.h"

namespace moecast {

CapacityOutcome limit_assignment(Assignment& assignment, std::int64_t slots, CapacityOverflow overflow,
                                 std::span<const double> popularity) {
  CapacityOutcome outcome;
  const auto count = static_cast<std::size_t>(assignment.experts);
  std::vector<std::int64_t> rows(count, 0);
  std::vector<std::int32_t> best(count);
  std::iota(best.begin(), best.end(), 0);
  if (popularity.size() == count) {
    std::stable_sort(best.begin(), best.end(), [&](std::int32_t a, std::int32_t b) {
      return popularity[static_cast<std::size_t>(a)] > popularity[static_cast<std::size_t>(b)];
    });
  }
  std::vector<std::int32_t> kept;
  std::vector<std::uint32_t> first{0};
  for (std::size_t token = 0; token < assignment.tokens(); ++token) {
    const std::span<const std::int32_t> wanted = assignment.of(token);
    for (const std::int32_t expert : wanted) {
      std::int32_t chosen = expert;
      if (rows[static_cast<std::size_t>(expert)] >= slots) {
        chosen = -1;
        if (overflow == CapacityOverflow::next_best) {
          const auto begin = kept.begin() + first.back();
          const auto found = std::find_if(best.begin(), best.end(), [&](std::int32_t other) {
            return rows[static_cast<std::size_t>(other)] < slots &&
                   std::find(wanted.begin(), wanted.end(), other) == wanted.end() &&
                   std::find(begin, kept.end(), other) == kept.end();
          });
          if (found != best.end()) chosen = *found;
        }
        ++(chosen >= 0 ? outcome.moved : overflow == CapacityOverflow::queue ? outcome.queued : outcome.dropped);
      }
      if (chosen < 0) continue;
      ++rows[static_cast<std::size_t>(chosen)];
      ++outcome.kept;
      kept.push_back(chosen);
    }
    first.push_back(static_cast<std::uint32_t>(kept.size()));
  }
  if (overflow == CapacityOverflow::pad) {
    for (const std::int64_t used : rows) outcome.padded += slots - used;
  }
  assignment.expert = std::move(kept);
  assignment.first = std::move(first);
  return outcome;
}

}  // namespace moecast
