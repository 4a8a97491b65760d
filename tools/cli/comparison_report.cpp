#include "tools/cli/comparison_report.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "models/core/quantity_text.h"

namespace moecast {
namespace {

using Show = std::function<std::string(double)>;

/// A number of both answers.
struct Quantity2 {
  const char* name;   ///< key in JSON and CSV, with its unit
  const char* title;  ///< for people
  std::optional<double> a, b;
  Show show;
};

std::string seconds_text(double value) { return format_seconds(Seconds(value)); }
std::string bytes_text(double value) { return format_bytes(Bytes(value)); }
std::string ratio_text(double value) { return fmt::format("{:.2f}", value); }

/// "+3.1 ms", "-3.1 ms", "0".
std::string signed_text(double difference, const Show& show) {
  if (difference == 0) return "0";
  return (difference > 0 ? "+" : "-") + show(std::abs(difference));
}

template <class T>
std::optional<double> number(const std::optional<T>& quantity) {
  return quantity ? std::optional(quantity->value()) : std::nullopt;
}

std::vector<Quantity2> quantities_of(const Prediction& a, const Prediction& b) {
  std::vector<Quantity2> all;
  const auto add = [&](const char* name, const char* title, std::optional<double> first, std::optional<double> second,
                       const Show& show) { all.push_back({name, title, first, second, show}); };
  const auto factor = [&](const char* name, const char* title, Seconds Factors::* part) {
    const auto of = [&](const Prediction& p) {
      return p.latency ? std::optional((p.factors.*part).value()) : std::nullopt;
    };
    add(name, title, of(a), of(b), seconds_text);
  };
  const auto memory = [&](const char* name, const char* title, Bytes MemoryPerRank::* part) {
    add(name, title, (a.memory.*part).value(), (b.memory.*part).value(), bytes_text);
  };
  const auto efficiency = [](const Prediction& p) {
    return p.latency ? p.factors.expert_parallel_efficiency_ratio : std::nullopt;
  };
  add("latency_s", "latency", number(a.latency), number(b.latency), seconds_text);
  add("latency_low_s", "90 % interval from", number(a.low), number(b.low), seconds_text);
  add("latency_high_s", "90 % interval to", number(a.high), number(b.high), seconds_text);
  add("throughput_tokens_per_s", "tokens/s", a.throughput_tokens_per_s, b.throughput_tokens_per_s, format_count);
  factor("factors.compute_s", "compute", &Factors::compute);
  factor("factors.memory_bandwidth_s", "memory bandwidth", &Factors::memory_bandwidth);
  factor("factors.routing_overhead_s", "routing", &Factors::routing_overhead);
  factor("factors.all_to_all_s", "all-to-all", &Factors::all_to_all);
  add("factors.expert_parallel_efficiency_ratio", "expert-parallel efficiency", efficiency(a), efficiency(b),
      ratio_text);
  add("memory_per_rank.total_bytes", "memory a rank", a.memory.total().value(), b.memory.total().value(), bytes_text);
  memory("memory_per_rank.weights_bytes", "  weights", &MemoryPerRank::weights);
  memory("memory_per_rank.kv_cache_bytes", "  KV cache", &MemoryPerRank::kv_cache);
  memory("memory_per_rank.activations_bytes", "  activations", &MemoryPerRank::activations);
  memory("memory_per_rank.workspace_bytes", "  workspace", &MemoryPerRank::workspace);
  return all;
}

std::optional<double> ratio_of(const std::optional<double>& a, const std::optional<double>& b) {
  return a && b && *a != 0 ? std::optional(*b / *a) : std::nullopt;
}

std::vector<std::string> cells(const std::string& title, const std::optional<double>& a, const std::optional<double>& b,
                               const Show& show) {
  return {title, format_or_dash(a, show), format_or_dash(b, show), a && b ? signed_text(*b - *a, show) : "–",
          format_or_dash(ratio_of(a, b), ratio_text)};
}

Table quantity_table(const ComparedAnswers& compared) {
  const Prediction& a = compared.first.prediction;
  const Prediction& b = compared.second.prediction;
  Table table{{"quantity", "A", "B", "B - A", "B / A"}, {}};
  for (const Quantity2& one : quantities_of(a, b)) table.rows.push_back(cells(one.title, one.a, one.b, one.show));
  const auto words = [&](const char* title, const auto& text) {
    table.rows.push_back({title, text(a), text(b), "–", "–"});
  };
  words("bottleneck", [](const Prediction& p) { return p.bottleneck.empty() ? "–" : p.bottleneck; });
  words("origin", [](const Prediction& p) { return p.latency ? std::string(to_string(p.origin)) : "–"; });
  words("status", [](const Prediction& p) { return status_name(p.status); });
  return table;
}

Table stage_table(const std::vector<StageDifference>& stages) {
  Table table{{"stage", "A", "B", "B - A", "B / A", "explains", "most of it"}, {}};
  for (const StageDifference& one : stages) {
    std::vector<std::string> row = cells(one.stage, one.first.value(), one.second.value(), seconds_text);
    row.push_back(format_or_dash(one.explained_ratio, format_percent));
    row.push_back(one.cause);
    table.rows.push_back(std::move(row));
  }
  return table;
}

/// Input -> its value in A and in B, of those that differ.
Json differing_inputs(const ComparedAnswers& compared) {
  const Json a = prediction_json(compared.first)["inputs"];
  const Json b = prediction_json(compared.second)["inputs"];
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

Json number_json(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

Json record(const char* kind, const std::string& name, const std::optional<double>& a, const std::optional<double>& b) {
  Json json{{"kind", kind}, {"name", name}, {"a", number_json(a)}, {"b", number_json(b)}};
  json["difference"] = a && b ? Json(*b - *a) : Json();
  json["ratio"] = number_json(ratio_of(a, b));
  return json;
}

}  // namespace

std::string comparison_text(const ComparedAnswers& compared, Format format) {
  const Comparison& comparison = compared.comparison;
  const Json differing = differing_inputs(compared);
  std::string text =
      differing.empty() ? "A and B are the same question\n" : render_table(input_difference_table(differing), format);
  text += "\n" + render_table(quantity_table(compared), format);
  if (!comparison.stages.empty()) text += "\n" + render_table(stage_table(comparison.stages), format);
  text += "\n" + comparison.verdict_text + "\n";
  if (!comparison.throughput_text.empty()) text += comparison.throughput_text + "\n";
  return text;
}

Json comparison_json(const ComparedAnswers& compared) {
  const Comparison& comparison = compared.comparison;
  const Prediction& a = compared.first.prediction;
  const Prediction& b = compared.second.prediction;
  Json json;
  json["verdict"] = std::string(to_string(comparison.ranking));
  json["reason"] = comparison.verdict_text;
  json["throughput"] = comparison.throughput_text.empty() ? Json() : Json(comparison.throughput_text);
  json["speedup_ratio"] = number_json(ratio_of(number(b.latency), number(a.latency)));
  json["inputs_that_differ"] = differing_inputs(compared);
  json["quantities"] = Json::array();
  json["stages"] = Json::array();
  for (Json& one : comparison_records(compared)) {
    const bool stage = one["kind"] == "stage";
    one.erase("kind");
    json[stage ? "stages" : "quantities"].push_back(std::move(one));
  }
  json["a"] = prediction_json(compared.first);
  json["b"] = prediction_json(compared.second);
  return json;
}

std::vector<Json> comparison_records(const ComparedAnswers& compared) {
  std::vector<Json> records;
  for (const Quantity2& one : quantities_of(compared.first.prediction, compared.second.prediction)) {
    records.push_back(record("quantity", one.name, one.a, one.b));
  }
  for (const StageDifference& one : compared.comparison.stages) {
    Json json = record("stage", one.stage + "_s", one.first.value(), one.second.value());
    json["explained_ratio"] = number_json(one.explained_ratio);
    json["cause"] = one.cause;
    records.push_back(std::move(json));
  }
  return records;
}

}  // namespace moecast
