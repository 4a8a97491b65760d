#include "tools/cli/compared_numbers.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/core/quantity_text.h"

namespace moecast {
namespace {

/// "+3.1 ms", "-3.1 ms", "0".
std::string signed_text(double difference, const ShowNumber& show) {
  if (difference == 0) return "0";
  return fmt::format("{}{}", difference > 0 ? "+" : "-", show(std::abs(difference)));
}

}  // namespace

std::string show_seconds(double value) { return format_seconds(Seconds(value)); }
std::string show_bytes(double value) { return format_bytes(Bytes(value)); }
std::string show_ratio(double value) { return fmt::format("{:.2f}", value); }

std::optional<double> ratio_of(const std::optional<double>& a, const std::optional<double>& b) {
  return a && b && *a != 0 ? std::optional(*b / *a) : std::nullopt;
}

std::vector<std::string> comparison_cells(const std::string& title, const std::optional<double>& a,
                                          const std::optional<double>& b, const ShowNumber& show) {
  return {title, format_or_dash(a, show), format_or_dash(b, show), a && b ? signed_text(*b - *a, show) : "–",
          format_or_dash(ratio_of(a, b), show_ratio)};
}

Json comparison_record(const char* kind, const std::string& name, const std::optional<double>& a,
                       const std::optional<double>& b) {
  Json json{{"kind", kind}, {"name", name}, {"a", number_or_null(a)}, {"b", number_or_null(b)}};
  json["difference"] = a && b ? Json(*b - *a) : Json();
  json["ratio"] = number_or_null(ratio_of(a, b));
  return json;
}

Json differing_inputs(const Json& a, const Json& b) {
  Json differing = Json::object();
  const auto take = [&](const Json& inputs) {
    for (const auto& [key, value] : inputs.items()) {
      if (key == "defaults" || (a.contains(key) && b.contains(key) && a.at(key) == b.at(key))) continue;
      differing[key] = {{"a", a.value(key, Json())}, {"b", b.value(key, Json())}};
    }
  };
  take(a);
  take(b);
  return differing;
}

Table input_difference_table(const Json& differing) {
  const auto text = [](const Json& value) -> std::string {
    if (value.is_null()) return "–";
    return value.is_string() ? value.get<std::string>() : dump_json_line(value);
  };
  Table table{{"input", "A", "B"}, {}};
  for (const auto& [key, both] : differing.items()) table.rows.push_back({key, text(both["a"]), text(both["b"])});
  return table;
}

}  // namespace moecast
