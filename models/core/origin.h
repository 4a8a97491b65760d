#pragma once
#include <algorithm>
#include <string_view>

namespace moecast {

/// Where a number comes from, strongest first. A prediction carries the weakest origin that it used.
enum class Origin { measured, interpolated, fitted, extrapolated, datasheet, assumed };

constexpr std::string_view to_string(Origin origin) {
  switch (origin) {
    case Origin::measured: return "measured";
    case Origin::interpolated: return "interpolated";
    case Origin::fitted: return "fitted";
    case Origin::extrapolated: return "extrapolated";
    case Origin::datasheet: return "datasheet";
    case Origin::assumed: return "assumed";
  }
  return "assumed";
}

constexpr Origin weakest(Origin a, Origin b) { return std::max(a, b); }

}  // namespace moecast
