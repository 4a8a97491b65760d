#include "models/core/quantity_text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include "models/core/error.h"

namespace moecast {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

struct Dimension {
  std::string_view what;     ///< "a time"
  std::string_view example;  ///< "50ms"
  std::span<const Unit> units;
};

constexpr std::array kTime{Unit{"ns", 1e-9}, Unit{"us", 1e-6}, Unit{"µs", 1e-6}, Unit{"μs", 1e-6},
                           Unit{"ms", 1e-3}, Unit{"s", 1},     Unit{"min", 60},  Unit{"h", 3600}};
constexpr std::array kBytes{Unit{"B", 1},        Unit{"kB", 1e3},     Unit{"KB", 1e3},     Unit{"MB", 1e6},
                            Unit{"GB", 1e9},     Unit{"TB", 1e12},    Unit{"PB", 1e15},    Unit{"KiB", 0x1p10},
                            Unit{"kiB", 0x1p10}, Unit{"MiB", 0x1p20}, Unit{"GiB", 0x1p30}, Unit{"TiB", 0x1p40}};
constexpr std::array kFlop{Unit{"FLOP", 1},     Unit{"kFLOP", 1e3},  Unit{"MFLOP", 1e6}, Unit{"GFLOP", 1e9},
                           Unit{"TFLOP", 1e12}, Unit{"PFLOP", 1e15}, Unit{"k", 1e3},     Unit{"M", 1e6},
                           Unit{"G", 1e9},      Unit{"T", 1e12},     Unit{"P", 1e15}};
constexpr std::array kBytesPerSecond{
    Unit{"B/s", 1},     Unit{"kB/s", 1e3},     Unit{"MB/s", 1e6},     Unit{"GB/s", 1e9},     Unit{"TB/s", 1e12},
    Unit{"PB/s", 1e15}, Unit{"KiB/s", 0x1p10}, Unit{"MiB/s", 0x1p20}, Unit{"GiB/s", 0x1p30}, Unit{"TiB/s", 0x1p40}};
constexpr std::array kFlopPerSecond{Unit{"FLOP/s", 1},    Unit{"kFLOP/s", 1e3},  Unit{"MFLOP/s", 1e6},
                                    Unit{"GFLOP/s", 1e9}, Unit{"TFLOP/s", 1e12}, Unit{"PFLOP/s", 1e15}};

constexpr Dimension kTimeDimension{"a time", "50ms", kTime};
constexpr Dimension kBytesDimension{"an amount of bytes", "16GiB", kBytes};
constexpr Dimension kFlopDimension{"an amount of arithmetic", "100GFLOP", kFlop};
constexpr Dimension kBytesPerSecondDimension{"a bandwidth", "4.8TB/s", kBytesPerSecond};
constexpr Dimension kFlopPerSecondDimension{"a rate of arithmetic", "150GFLOP/s", kFlopPerSecond};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// Reads a leading decimal number; nullopt when there is none.
std::optional<std::pair<double, std::string_view>> leading_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return std::nullopt;
  return std::pair{value, text.substr(static_cast<std::size_t>(end - text.data()))};
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

/// What to write instead of a unit that is not known.
std::string unit_hint(std::string_view unit, const Dimension& dimension) {
  if (lower(unit) == "gb" || lower(unit) == "mb" || lower(unit) == "kb" || lower(unit) == "tb") {
    const char prefix = unit.front() == 'k' || unit.front() == 'K' ? 'k'
                        : lower(unit)[0] == 'm'                    ? 'M'
                        : lower(unit)[0] == 'g'                    ? 'G'
                                                                   : 'T';
    const std::string power = prefix == 'k' ? "10^3" : prefix == 'M' ? "10^6" : prefix == 'G' ? "10^9" : "10^12";
    const std::string rate = &dimension == &kBytesPerSecondDimension ? "/s" : "";
    if (&dimension == &kBytesDimension || !rate.empty()) {
      return fmt::format("\"b\" may mean bits: write \"{0}B{1}\" ({2} bytes) or \"{3}iB{1}\" (a power of two)", prefix,
                         rate, power, prefix == 'k' ? 'K' : prefix);
    }
  }
  std::vector<std::string> names;
  for (const Unit& known : dimension.units) {
    if (lower(known.name) == lower(unit)) return fmt::format("write \"{}\"", known.name);
    std::string squeezed;
    for (const char c : known.name) {
      if (c != '/') squeezed += c;
    }
    if (lower(squeezed) == lower(unit)) return fmt::format("write \"{}\"", known.name);
    if (known.name.find('\xce') == std::string_view::npos && known.name.find('\xc2') == std::string_view::npos) {
      names.emplace_back(known.name);
    }
  }
  return fmt::format("units: {}", fmt::join(names, ", "));
}

double parse_quantity(std::string_view text, const std::string& where, const Dimension& dimension) {
  const std::string_view whole = trimmed(text);
  const auto number = leading_number(whole);
  if (!number) {
    throw UsageError(where, fmt::format("\"{}\" is not {}", text, dimension.what),
                     fmt::format("write a number and a unit, e.g. \"{}\"", dimension.example));
  }
  const auto [value, rest] = *number;
  const std::string_view unit = trimmed(rest);
  if (value < 0) {
    throw UsageError(where, fmt::format("\"{}\" is negative", text),
                     fmt::format("write e.g. \"{}\"", dimension.example));
  }
  if (unit.empty()) {
    throw UsageError(where, fmt::format("\"{}\" has no unit", text),
                     fmt::format("write a number and a unit, e.g. \"{}\"", dimension.example));
  }
  for (const Unit& known : dimension.units) {
    if (known.name != unit) continue;
    if (std::isfinite(value * known.factor)) return value * known.factor;
    throw UsageError(where, fmt::format("\"{}\" is too large", text),
                     fmt::format("write e.g. \"{}\"", dimension.example));
  }
  throw UsageError(where,
                   fmt::format("\"{}\" is not a unit of {}", unit, dimension.what.substr(dimension.what.find(' ') + 1)),
                   unit_hint(unit, dimension));
}

struct Scale {
  double factor;
  std::string_view unit;
};

/// Three significant digits with the largest unit that keeps the number at 1 or above.
std::string scaled(double value, std::span<const Scale> scales) {
  if (value == 0) return fmt::format("0 {}", scales.back().unit);
  const Scale* chosen = &scales.back();
  for (const Scale& scale : scales) {
    if (std::abs(value) >= scale.factor * 0.9995) {
      chosen = &scale;
      break;
    }
  }
  const double shown = value / chosen->factor;
  const double magnitude = std::abs(shown);
  const int decimals = magnitude >= 99.95 ? 0 : magnitude >= 9.995 ? 1 : 2;
  std::string text = fmt::format("{:.{}f}", shown, decimals);
  if (text.find('.') != std::string::npos && magnitude >= 0.9995) {
    while (text.ends_with('0')) text.pop_back();
    if (text.ends_with('.')) text.pop_back();
  }
  return chosen->unit.empty() ? text : fmt::format("{} {}", text, chosen->unit);
}

constexpr std::array kTimeScales{Scale{1, "s"}, Scale{1e-3, "ms"}, Scale{1e-6, "us"}, Scale{1e-9, "ns"}};
constexpr std::array kByteScales{Scale{1e15, "PB"}, Scale{1e12, "TB"}, Scale{1e9, "GB"},
                                 Scale{1e6, "MB"},  Scale{1e3, "kB"},  Scale{1, "B"}};
constexpr std::array kFlopScales{Scale{1e15, "PFLOP"}, Scale{1e12, "TFLOP"}, Scale{1e9, "GFLOP"},
                                 Scale{1e6, "MFLOP"},  Scale{1e3, "kFLOP"},  Scale{1, "FLOP"}};
constexpr std::array kRateScales{Scale{1e12, "TB/s"}, Scale{1e9, "GB/s"}, Scale{1e6, "MB/s"}, Scale{1e3, "kB/s"},
                                 Scale{1, "B/s"}};
constexpr std::array kCountScales{Scale{1e12, "T"}, Scale{1e9, "B"}, Scale{1e6, "M"}, Scale{1e3, "k"}, Scale{1, ""}};

constexpr std::size_t kMaxRangeValues = 100000;

/// Appends the values of one comma-separated part: "8", "1-8", "1-64*2", "0-100+25".
void append_part(std::string_view part, const std::string& where, std::int64_t low, std::int64_t high,
                 std::vector<std::int64_t>& values) {
  const std::size_t dash = part.find('-', 1);
  if (dash == std::string_view::npos) {
    values.push_back(parse_count(part, where, low, high));
    return;
  }
  const std::string_view rest = part.substr(dash + 1);
  const std::size_t sign = rest.find_first_of("*+");
  const bool multiplies = sign != std::string_view::npos && rest[sign] == '*';
  const std::int64_t first = parse_count(part.substr(0, dash), where, low, high);
  const std::int64_t last = parse_count(rest.substr(0, sign), where, low, high);
  const std::int64_t step =
      sign == std::string_view::npos ? 1 : parse_count(rest.substr(sign + 1), where, multiplies ? 2 : 1);
  if (last < first) {
    throw UsageError(where, fmt::format("range \"{}\" descends", part), fmt::format("write \"{}-{}\"", last, first));
  }
  if (multiplies && first == 0) {
    throw UsageError(where, fmt::format("range \"{}\" never leaves 0", part), "start a multiplying range at 1");
  }
  for (std::int64_t value = first; value <= last;) {
    values.push_back(value);
    if (values.size() > kMaxRangeValues) {
      throw UsageError(where, fmt::format("range \"{}\" has more than {} values", part, kMaxRangeValues),
                       "write a step, e.g. \"1-65536*2\"");
    }
    if (multiplies ? value > last / step : value > last - step) break;
    value = multiplies ? value * step : value + step;
  }
}

/// Nothing ever ends at a rate of zero.
double positive_rate(double value, std::string_view text, const std::string& where) {
  if (value > 0) return value;
  throw UsageError(where, fmt::format("\"{}\" must be above 0", text), "leave it out where it is not known");
}

}  // namespace

Seconds parse_seconds(std::string_view text, const std::string& where) {
  return Seconds(parse_quantity(text, where, kTimeDimension));
}
Bytes parse_bytes(std::string_view text, const std::string& where) {
  return Bytes(parse_quantity(text, where, kBytesDimension));
}
Flops parse_flops(std::string_view text, const std::string& where) {
  return Flops(parse_quantity(text, where, kFlopDimension));
}
BytesPerSecond parse_bytes_per_second(std::string_view text, const std::string& where) {
  return BytesPerSecond(positive_rate(parse_quantity(text, where, kBytesPerSecondDimension), text, where));
}
FlopsPerSecond parse_flops_per_second(std::string_view text, const std::string& where) {
  return FlopsPerSecond(positive_rate(parse_quantity(text, where, kFlopPerSecondDimension), text, where));
}

std::int64_t parse_count(std::string_view text, const std::string& where, std::int64_t low, std::int64_t high) {
  const std::string_view digits = trimmed(text);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool whole = error == std::errc() && end == digits.data() + digits.size() && !digits.empty();
  if (error == std::errc::result_out_of_range) {
    throw UsageError(where, fmt::format("{} is too large", digits), fmt::format("expected at most {}", high));
  }
  if (!whole) {
    throw UsageError(where, fmt::format("\"{}\" is not a whole number", text), "write digits only, e.g. 1000");
  }
  if (value < low || value > high) {
    const std::string limit = high == INT64_MAX ? fmt::format("at least {}", low) : fmt::format("{} to {}", low, high);
    throw UsageError(where, fmt::format("{} is out of range", value), fmt::format("expected {}", limit));
  }
  return value;
}

double parse_number(std::string_view text, const std::string& where, double low, double high) {
  const auto number = leading_number(trimmed(text));
  if (!number || !number->second.empty()) {
    throw UsageError(where, fmt::format("\"{}\" is not a number", text), "write e.g. 1.5");
  }
  if (number->first < low || number->first > high) {
    throw UsageError(
        where, fmt::format("{} is out of range", number->first),
        high >= 1e300 ? fmt::format("expected at least {}", low) : fmt::format("expected {} to {}", low, high));
  }
  return number->first;
}

std::vector<std::int64_t> parse_range(std::string_view text, const std::string& where, std::int64_t low,
                                      std::int64_t high) {
  std::vector<std::int64_t> values;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find(',', start), text.size());
    append_part(trimmed(text.substr(start, end - start)), where, low, high, values);
    start = end + 1;
  }
  return values;
}

std::string format_seconds(Seconds value) { return scaled(value.value(), kTimeScales); }
std::string format_bytes(Bytes value) { return scaled(value.value(), kByteScales); }
std::string format_flops(Flops value) { return scaled(value.value(), kFlopScales); }
std::string format_bytes_per_second(BytesPerSecond value) { return scaled(value.value(), kRateScales); }
std::string format_count(double value) { return scaled(value, kCountScales); }
std::string format_percent(double ratio) { return fmt::format("{:.1f} %", ratio * 100); }

}  // namespace moecast
