#include "tools/cli/saved_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr const char* kSaveHint = "save it with moecast predict ... --format json > FILE";

template <class T, std::size_t N, class Name>
T named(const JsonView& view, const std::array<T, N>& all, Name name) {
  const std::string text = view.as_string();
  for (const T one : all) {
    if (name(one) == text) return one;
  }
  throw InputError(view.where(), fmt::format("\"{}\" is no word of an answer", text), kSaveHint);
}

constexpr std::array kStatuses{Status::ok, Status::does_not_fit, Status::outside_range};
constexpr std::array kOrigins{Origin::measured,     Origin::interpolated, Origin::fitted,
                              Origin::extrapolated, Origin::datasheet,    Origin::assumed};
constexpr std::array kPhases{TrainingPhase::forward, TrainingPhase::recompute, TrainingPhase::backward,
                             TrainingPhase::gradient_reduction, TrainingPhase::optimizer};

Origin origin_of(const JsonView& view) {
  return named(view, kOrigins, [](Origin origin) { return to_string(origin); });
}

Seconds seconds_of(const JsonView& view) { return Seconds(view.as_number(0)); }

template <class T>
std::optional<T> find_quantity(const JsonView& view, std::string_view key) {
  const std::optional<double> value = view.find_number(key, 0);
  return value ? std::optional(T(*value)) : std::nullopt;
}

Factors factors_of(const JsonView& view) {
  Factors factors;
  factors.all_to_all = seconds_of(view.at("all_to_all_s"));
  factors.memory_bandwidth = seconds_of(view.at("memory_bandwidth_s"));
  factors.compute = seconds_of(view.at("compute_s"));
  factors.routing_overhead = seconds_of(view.at("routing_overhead_s"));
  factors.expert_parallel_efficiency_ratio = view.find_number("expert_parallel_efficiency_ratio", 0);
  return factors;
}

MemoryPerRank memory_of(const JsonView& view) {
  const auto bytes = [&](const char* key) { return Bytes(view.at(key).as_number(0)); };
  const auto or_none = [&](const char* key) { return Bytes(view.find_number(key, 0).value_or(0)); };
  MemoryPerRank memory;
  memory.weights = bytes("weights_bytes");
  memory.kv_cache = bytes("kv_cache_bytes");
  memory.activations = bytes("activations_bytes");
  memory.workspace = bytes("workspace_bytes");
  memory.capacity = find_quantity<Bytes>(view, "capacity_bytes");
  memory.gradients = or_none("gradients_bytes");  // of training steps only
  memory.optimizer_states = or_none("optimizer_states_bytes");
  memory.saved_activations = or_none("saved_activations_bytes");
  return memory;
}

OperatorCost operator_of(const JsonView& view) {
  OperatorCost cost;
  cost.kind = view.at("kind").as_string();
  cost.name = view.at("name").as_string();
  cost.stage = view.at("stage").as_string();
  cost.count = view.at("count").as_number(0);
  cost.latency = seconds_of(view.at("latency_s"));
  cost.origin = origin_of(view.at("origin"));
  cost.flops = find_quantity<Flops>(view, "flops");
  cost.bytes = find_quantity<Bytes>(view, "bytes");
  if (const std::optional<double> high = view.find_number("latency_high_s", 0); high && cost.latency.value() > 0) {
    cost.half_width = std::log(*high / cost.latency.value());
  }
  if (view.has("phase")) {
    cost.phase = named(view.at("phase"), kPhases, [](TrainingPhase phase) { return to_string(phase); });
  }
  return cost;
}

SpeculationReport speculation_of(const JsonView& view) {
  SpeculationReport report;
  report.draft_tokens = static_cast<int>(view.at("draft_tokens").as_int(1, 64));
  report.acceptance_ratio = view.at("acceptance_ratio").as_number(0, 1);
  report.tokens_per_step = view.at("tokens_per_step").as_number(1);
  report.tpot = seconds_of(view.at("tpot_s"));
  report.tpot_low = seconds_of(view.at("tpot_low_s"));
  report.tpot_high = seconds_of(view.at("tpot_high_s"));
  report.drafting = seconds_of(view.at("drafting_s"));
  return report;
}

Prediction prediction_of(const JsonView& view) {
  Prediction p;
  p.status = named(view.at("status"), kStatuses, [](Status status) { return status_name(status); });
  p.reason = view.find_string("reason").value_or("");
  p.latency = find_quantity<Seconds>(view, "latency_s");
  p.low = find_quantity<Seconds>(view, "latency_low_s");
  p.high = find_quantity<Seconds>(view, "latency_high_s");
  if ((p.status == Status::ok) != p.latency.has_value()) {
    throw InputError(view.where(), "has a latency without the status ok, or that status without a latency", kSaveHint);
  }
  p.confidence_ratio = view.at("confidence_ratio").as_number(0, 1);
  p.throughput_tokens_per_s = view.find_number("throughput_tokens_per_s", 0);
  if (p.latency) p.factors = factors_of(view.at("factors"));
  p.memory = memory_of(view.at("memory_per_rank"));
  p.total_parameters = view.at("parameters").at("total").as_number(0);
  p.active_parameters = view.at("parameters").at("active").as_number(0);
  p.flops = find_quantity<Flops>(view, "flops");
  p.bottleneck = view.find_string("bottleneck").value_or("");
  if (p.latency) p.origin = origin_of(view.at("origin"));
  if (view.has("speculation") && !view.at("speculation").raw().is_null()) {
    p.speculation = speculation_of(view.at("speculation"));
  }
  const JsonView operators = view.at("operators");
  if (!operators.is_array()) throw InputError(operators.where(), "is no list", kSaveHint);
  for (std::size_t i = 0; i < operators.size(); ++i) p.operators.push_back(operator_of(operators.at(i)));
  if (view.has("warnings")) {
    const JsonView warnings = view.at("warnings");
    for (std::size_t i = 0; i < warnings.size(); ++i) p.warnings.push_back(warnings.at(i).as_string());
  }
  return p;
}

decltype(InputValue::value) value_of(const JsonView& view) {
  const Json& raw = view.raw();
  if (raw.is_null()) return std::monostate{};
  if (raw.is_boolean()) return raw.get<bool>();
  if (raw.is_number_integer()) return view.as_int();
  if (raw.is_number()) return view.as_number();
  if (raw.is_string()) return raw.get<std::string>();
  if (!raw.is_array()) throw InputError(view.where(), "is no value of a question", kSaveHint);
  std::vector<std::int64_t> list;
  for (std::size_t i = 0; i < view.size(); ++i) list.push_back(view.at(i).as_int());
  return list;
}

}  // namespace

std::shared_ptr<const Json> find_saved_answer(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return nullptr;
  auto document = std::make_shared<Json>(read_json_file(path));
  if (document->is_array()) {
    if (document->size() != 1) {
      throw InputError(path, fmt::format("holds {} answers", document->size()), "save one: predict without ranges");
    }
    document = std::make_shared<Json>(document->front());
  }
  return document->is_object() && document->contains("status") ? document : nullptr;
}

bool is_service(const Json& document) { return document.contains("ttft_p50_s"); }

Answer read_answer(const Json& document, const std::string& where) {
  const JsonView view(document, where);
  Answer answer;
  answer.prediction = prediction_of(view);
  answer.query.inputs = read_inputs(view);
  return answer;
}

std::vector<InputValue> read_inputs(const JsonView& document) {
  const JsonView inputs = document.at("inputs");
  std::set<std::string> defaults;
  if (inputs.has("defaults")) {
    const JsonView names = inputs.at("defaults");
    for (std::size_t i = 0; i < names.size(); ++i) defaults.insert(names.at(i).as_string());
  }
  std::vector<InputValue> values;
  for (const std::string& key : inputs.keys()) {
    if (key == "defaults") continue;
    const JsonView value(inputs.raw().at(key), inputs.where() + "/" + key);
    values.push_back({key, value_of(value), !defaults.contains(key)});
  }
  return values;
}

}  // namespace moecast
