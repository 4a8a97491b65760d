#include "tools/cli/service_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "models/core/quantity_text.h"

namespace moecast {
namespace {

std::string show_rate(double value) { return fmt::format("{:.3g}", value); }
std::string show_share(double value) { return format_percent(value); }
std::string show_money(double value) { return fmt::format("{:.3f}", value); }

struct Row {
  const char* name;
  const char* title;
  std::string (*show)(double);
};

constexpr Row kRows[] = {{"ttft_p50_s", "TTFT P50", show_seconds},
                         {"ttft_p99_s", "TTFT P99", show_seconds},
                         {"tpot_p50_s", "TPOT P50", show_seconds},
                         {"tpot_p99_s", "TPOT P99", show_seconds},
                         {"end_to_end_p50_s", "end to end P50", show_seconds},
                         {"end_to_end_p99_s", "end to end P99", show_seconds},
                         {"queue_wait_mean_s", "wait in the queue, mean", show_seconds},
                         {"saturation_requests_per_s", "requests/s at saturation", show_rate},
                         {"load_ratio", "share of saturation", show_share},
                         {"output_tokens_per_s", "tokens/s", show_rate},
                         {"output_tokens_per_gpu_s", "tokens/s a GPU", show_rate},
                         {"cost_per_million_tokens", "cost a million tokens", show_money},
                         {"goodput_ratio", "requests that meet the goals", show_share},
                         {"in_flight_mean", "requests in flight", show_rate},
                         {"utilisation_ratio", "busy", show_share},
                         {"kv_occupancy_mean_ratio", "KV cache in use, mean", show_share},
                         {"kv_occupancy_max_ratio", "KV cache in use, most", show_share},
                         {"preemptions", "preemptions", show_rate},
                         {"recomputed_tokens", "tokens computed again", show_rate},
                         {"cached_tokens", "prompt tokens found in the cache", show_rate},
                         {"gpus", "GPUs", show_rate}};

constexpr double kMost = 1e300;

}  // namespace

ComparedServices::ComparedServices(std::shared_ptr<const Json> first, const std::string& first_file,
                                   std::shared_ptr<const Json> second, const std::string& second_file)
    : first_(std::move(first)), second_(std::move(second)) {
  const JsonView a(*first_, first_file);
  const JsonView b(*second_, second_file);
  for (const JsonView& view : {a, b}) {
    static_cast<void>(view.at("status").as_string());
    static_cast<void>(view.at("inputs").keys());
  }
  for (const Row& row : kRows) {
    numbers_.push_back({row.name, row.title, a.find_number(row.name, 0), b.find_number(row.name, 0), row.show});
  }
  const auto memory = [](const JsonView& view) { return view.at("memory_per_rank").find_number("total_bytes", 0); };
  numbers_.push_back({"memory_per_rank.total_bytes", "memory a rank", memory(a), memory(b), show_bytes});
  add_verdict("ttft_p50_s", "TTFT", "ttft_p50_low_s", "ttft_p50_high_s");
  add_verdict("tpot_p50_s", "TPOT", "tpot_p50_low_s", "tpot_p50_high_s");
  add_verdict("saturation_requests_per_s", "saturation", "saturation_low_requests_per_s",
              "saturation_high_requests_per_s");
}

void ComparedServices::add_verdict(const char* name, const char* title, const char* low, const char* high) {
  const JsonView a(*first_, "A");
  const JsonView b(*second_, "B");
  const std::optional<double> first = a.find_number(name);
  const std::optional<double> second = b.find_number(name);
  const auto add = [&](const char* verdict, const std::string& reason) {
    verdicts_.push_back({name, verdict, fmt::format("{}: {}", title, reason)});
  };
  const auto why = [](const JsonView& view) {
    return fmt::format("{} is {}: {}", view.where(), view.at("status").as_string(),
                       view.find_string("reason").value_or("no reason given"));
  };
  if (!first && !second) return add("neither", fmt::format("neither has one; {}; {}", why(a), why(b)));
  if (!first) return add("only_b", "only B has one; " + why(a));
  if (!second) return add("only_a", "only A has one; " + why(b));
  if (*first == *second) return add("equal", "A and B are equal");
  // An end that is not known (the service is unstable there) bounds nothing.
  const bool lower = b.find_number(high).value_or(kMost) < a.find_number(low).value_or(-kMost);
  const bool higher = b.find_number(low).value_or(-kMost) > a.find_number(high).value_or(kMost);
  const std::string times = *first != 0 ? fmt::format("{:.3g} x A's", *second / *first) : "more than A's";
  if (lower || higher) return add(lower ? "lower" : "higher", "B's is " + times);
  add("undecided", fmt::format("undecided: the intervals overlap (B's would be {})", times));
}

std::vector<Json> ComparedServices::records() const {
  std::vector<Json> records;
  for (const ComparedNumber& one : numbers_) records.push_back(comparison_record("quantity", one.name, one.a, one.b));
  return records;
}

Json ComparedServices::json() const {
  Json json;
  json["verdicts"] = Json::array();
  for (const Verdict& one : verdicts_) {
    json["verdicts"].push_back({{"name", one.name}, {"verdict", one.verdict}, {"reason", one.reason}});
  }
  json["inputs_that_differ"] = differing_inputs(first_->at("inputs"), second_->at("inputs"));
  json["quantities"] = Json::array();
  for (Json& one : records()) {
    one.erase("kind");
    json["quantities"].push_back(std::move(one));
  }
  json["a"] = *first_;
  json["b"] = *second_;
  return json;
}

std::string ComparedServices::text(Format format) const {
  const Json differing = differing_inputs(first_->at("inputs"), second_->at("inputs"));
  std::string text =
      differing.empty() ? "A and B are the same question\n" : render_table(input_difference_table(differing), format);
  Table table{{"quantity", "A", "B", "B - A", "B / A"}, {}};
  for (const ComparedNumber& one : numbers_) {
    if (one.a || one.b) table.rows.push_back(comparison_cells(one.title, one.a, one.b, one.show));
  }
  const auto status = [](const Json& document) { return document.at("status").get<std::string>(); };
  table.rows.push_back({"status", status(*first_), status(*second_), "–", "–"});
  text += fmt::format("\n{}\n", render_table(table, format));
  for (const Verdict& one : verdicts_) text += one.reason + "\n";
  return text;
}

}  // namespace moecast
