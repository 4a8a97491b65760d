#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/core/units.h"

namespace moecast {

// Numbers with units as people type and read them. "GB" is 10^9 bytes, "GiB" is 2^30; "Gb" is refused, because nobody
// knows whether bits or bytes are meant. A number and its unit may be separated by spaces. `where` names the flag or
// field in errors.

/// "50ms", "1.5us", "2 min", "1h". @throws UsageError without a unit, on an unknown one, or if negative or not finite.
Seconds parse_seconds(std::string_view text, const std::string& where);
/// "141GiB", "80GB", "512 B". @throws UsageError as above.
Bytes parse_bytes(std::string_view text, const std::string& where);
/// "100GFLOP", "2TFLOP"; "100G" is the same. @throws UsageError as above.
Flops parse_flops(std::string_view text, const std::string& where);
/// "4.8TB/s". @throws UsageError as above, and if zero.
BytesPerSecond parse_bytes_per_second(std::string_view text, const std::string& where);
/// "150GFLOP/s". @throws UsageError as above, and if zero.
FlopsPerSecond parse_flops_per_second(std::string_view text, const std::string& where);

/// A whole number in [low, high]; "1e6" and "4_096" are not whole numbers. @throws UsageError.
std::int64_t parse_count(std::string_view text, const std::string& where, std::int64_t low = 0,
                         std::int64_t high = INT64_MAX);
/// A finite number in [low, high]. @throws UsageError.
double parse_number(std::string_view text, const std::string& where, double low = -1e300, double high = 1e300);

/// Values of a range, in the order written: "8", "1,8,64", "1-8" (every one), "1-64*2" (1, 2, 4, ... 64), "0-100+25".
/// @throws UsageError on bad text, values outside [low, high], an empty or descending range, or more than 100000
/// values.
std::vector<std::int64_t> parse_range(std::string_view text, const std::string& where, std::int64_t low = 0,
                                      std::int64_t high = INT64_MAX);

/// Three significant digits and the unit that keeps them readable: "2.31 ms", "93.4 GB", "1.2 GFLOP", "4.8 TB/s".
std::string format_seconds(Seconds value);
std::string format_bytes(Bytes value);
std::string format_flops(Flops value);
std::string format_bytes_per_second(BytesPerSecond value);
/// "46.7 B" (10^9), "12.9 M": parameters and other counts.
std::string format_count(double value);
/// "7.3 %" of a ratio.
std::string format_percent(double ratio);
/// An en dash for an unknown value, else `format` of it.
template <class T, class Format>
std::string format_or_dash(const std::optional<T>& value, Format format) {
  return value ? format(*value) : std::string("–");
}

}  // namespace moecast
