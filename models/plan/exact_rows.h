#pragma once
#include <cstdint>
#include <span>

namespace moecast {

/// Rows that somebody says each expert of a layer gets.
/// @throws InputError at rows_per_expert unless there is one number an expert, none above the tokens, and no more rows
/// than tokens choose.
void require_rows(std::span<const std::int64_t> rows, std::int64_t experts, int top_k, std::int64_t tokens);

}  // namespace moecast
