#include "tools/cli/comparison_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

#include "models/core/quantity_text.h"
#include "tools/cli/compared_numbers.h"

namespace moecast {
namespace {

template <class T>
std::optional<double> number(const std::optional<T>& quantity) {
  return quantity ? std::optional(quantity->value()) : std::nullopt;
}

/// Ranks that an answer is of; nullopt where its inputs do not say.
std::optional<double> devices_of(const Answer& answer) {
  double devices = 1;
  for (const std::string_view degree : {"tp", "dp", "cp", "pp"}) {
    const auto input = std::ranges::find(answer.query.inputs, degree, &InputValue::name);
    if (input == answer.query.inputs.end()) return std::nullopt;
    const auto* ranks = std::get_if<std::int64_t>(&input->value);
    if (ranks == nullptr) return std::nullopt;
    devices *= static_cast<double>(*ranks);
  }
  return devices;
}

std::vector<ComparedNumber> quantities_of(const ComparedAnswers& compared) {
  const Prediction& a = compared.first.prediction;
  const Prediction& b = compared.second.prediction;
  std::vector<ComparedNumber> all;
  const auto add = [&](const char* name, const char* title, std::optional<double> first, std::optional<double> second,
                       const ShowNumber& show) { all.push_back({name, title, first, second, show}); };
  const auto factor = [&](const char* name, const char* title, Seconds Factors::* part) {
    const auto of = [&](const Prediction& p) {
      return p.latency ? std::optional((p.factors.*part).value()) : std::nullopt;
    };
    add(name, title, of(a), of(b), show_seconds);
  };
  const auto memory = [&](const char* name, const char* title, Bytes MemoryPerRank::* part) {
    add(name, title, (a.memory.*part).value(), (b.memory.*part).value(), show_bytes);
  };
  const auto efficiency = [](const Prediction& p) {
    return p.latency ? p.factors.expert_parallel_efficiency_ratio : std::nullopt;
  };
  add("latency_s", "latency", number(a.latency), number(b.latency), show_seconds);
  add("latency_low_s", "90 % interval from", number(a.low), number(b.low), show_seconds);
  add("latency_high_s", "90 % interval to", number(a.high), number(b.high), show_seconds);
  if (a.speculation || b.speculation) {
    const auto tpot = [](const Prediction& p) {
      return p.speculation ? std::optional(p.speculation->tpot.value()) : number(p.latency);
    };
    add("tpot_s", "time of an output token", tpot(a), tpot(b), show_seconds);
  }
  add("throughput_tokens_per_s", "tokens/s", a.throughput_tokens_per_s, b.throughput_tokens_per_s, format_count);
  const std::optional<double> first = devices_of(compared.first);
  const std::optional<double> second = devices_of(compared.second);
  if (first.value_or(1) > 1 || second.value_or(1) > 1) {
    const auto each = [](std::optional<double> tokens, std::optional<double> devices) {
      return tokens && devices ? std::optional(*tokens / *devices) : std::nullopt;
    };
    add("devices", "devices", first, second, format_count);
    add("throughput_tokens_per_s_per_device", "tokens/s a device", each(a.throughput_tokens_per_s, first),
        each(b.throughput_tokens_per_s, second), format_count);
  }
  factor("factors.compute_s", "compute", &Factors::compute);
  factor("factors.memory_bandwidth_s", "memory bandwidth", &Factors::memory_bandwidth);
  factor("factors.routing_overhead_s", "routing", &Factors::routing_overhead);
  factor("factors.all_to_all_s", "all-to-all", &Factors::all_to_all);
  add("factors.expert_parallel_efficiency_ratio", "expert-parallel efficiency", efficiency(a), efficiency(b),
      show_ratio);
  add("memory_per_rank.total_bytes", "memory a rank", a.memory.total().value(), b.memory.total().value(), show_bytes);
  memory("memory_per_rank.weights_bytes", "  weights", &MemoryPerRank::weights);
  memory("memory_per_rank.kv_cache_bytes", "  KV cache", &MemoryPerRank::kv_cache);
  memory("memory_per_rank.activations_bytes", "  activations", &MemoryPerRank::activations);
  memory("memory_per_rank.workspace_bytes", "  workspace", &MemoryPerRank::workspace);
  return all;
}

Table quantity_table(const ComparedAnswers& compared) {
  const Prediction& a = compared.first.prediction;
  const Prediction& b = compared.second.prediction;
  Table table{{"quantity", "A", "B", "B - A", "B / A"}, {}};
  for (const ComparedNumber& one : quantities_of(compared))
    table.rows.push_back(comparison_cells(one.title, one.a, one.b, one.show));
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
    std::vector<std::string> row = comparison_cells(one.stage, one.first.value(), one.second.value(), show_seconds);
    row.push_back(format_or_dash(one.explained_ratio, format_percent));
    row.push_back(one.cause);
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace

std::string comparison_text(const ComparedAnswers& compared, Format format) {
  const Comparison& comparison = compared.comparison;
  const Json differing =
      differing_inputs(compared.first_document->at("inputs"), compared.second_document->at("inputs"));
  std::string text =
      differing.empty() ? "A and B are the same question\n" : render_table(input_difference_table(differing), format);
  text += fmt::format("\n{}", render_table(quantity_table(compared), format));
  if (!comparison.stages.empty()) text += fmt::format("\n{}", render_table(stage_table(comparison.stages), format));
  text += fmt::format("\n{}\n", comparison.verdict_text);
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
  json["speedup_ratio"] = number_or_null(ratio_of(number(b.latency), number(a.latency)));
  json["inputs_that_differ"] =
      differing_inputs(compared.first_document->at("inputs"), compared.second_document->at("inputs"));
  json["quantities"] = Json::array();
  json["stages"] = Json::array();
  for (Json& one : comparison_records(compared)) {
    const bool stage = one["kind"] == "stage";
    one.erase("kind");
    json[stage ? "stages" : "quantities"].push_back(std::move(one));
  }
  json["a"] = *compared.first_document;
  json["b"] = *compared.second_document;
  return json;
}

std::vector<Json> comparison_records(const ComparedAnswers& compared) {
  std::vector<Json> records;
  for (const ComparedNumber& one : quantities_of(compared)) {
    records.push_back(comparison_record("quantity", one.name, one.a, one.b));
  }
  for (const StageDifference& one : compared.comparison.stages) {
    Json json = comparison_record("stage", one.stage + "_s", one.first.value(), one.second.value());
    json["explained_ratio"] = number_or_null(one.explained_ratio);
    json["cause"] = one.cause;
    records.push_back(std::move(json));
  }
  return records;
}

}  // namespace moecast
