#pragma once
#include <cstdint>

namespace moecast {

/// A count as a factor of a formula; exact below 2^53.
constexpr double value(std::int64_t count) { return static_cast<double>(count); }

}  // namespace moecast
