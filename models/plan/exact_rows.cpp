#include "models/plan/exact_rows.h"

#include <fmt/format.h>

#include "models/core/error.h"

namespace moecast {

void require_rows(std::span<const std::int64_t> rows, std::int64_t experts, int top_k, std::int64_t tokens) {
  if (std::ssize(rows) != experts) {
    throw InputError("rows_per_expert", fmt::format("has {} experts, the layer {}", rows.size(), experts),
                     "write one number for each expert");
  }
  std::int64_t sum = 0;
  for (const std::int64_t of : rows) {
    sum += of;
    if (of > tokens) {
      throw InputError("rows_per_expert", fmt::format("gives an expert {} rows of {} tokens", of, tokens),
                       "a token chooses an expert at most once");
    }
  }
  if (sum > tokens * top_k) {
    throw InputError("rows_per_expert", fmt::format("has {} rows, {} are routed at most", sum, tokens * top_k),
                     "the rows of all experts are tokens times top-k, or fewer where some are dropped");
  }
}

}  // namespace moecast
