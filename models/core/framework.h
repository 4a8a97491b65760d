#pragma once
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "models/core/error.h"

namespace moecast {

/// Serving frameworks whose kernels were measured.
inline constexpr std::array<std::string_view, 3> kFrameworks{"vllm", "sglang", "trtllm"};

/// The name as it is. @throws InputError at `where` for what is none of kFrameworks.
inline std::string framework_named(const std::string& text, const std::string& where) {
  if (std::ranges::find(kFrameworks, text) != kFrameworks.end()) return text;
  throw InputError(where, std::string("kernels of \"").append(text).append("\" were not measured"),
                   "write vllm, sglang or trtllm");
}

}  // namespace moecast
