#include "tools/python/bindings/estimate.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/core/json.h"

namespace moecast::python {
namespace {

constexpr double kMost = 1e300;

void add(Factors& sum, const Factors& more, double times) {
  sum.all_to_all += more.all_to_all * times;
  sum.memory_bandwidth += more.memory_bandwidth * times;
  sum.compute += more.compute * times;
  sum.routing_overhead += more.routing_overhead * times;
}

/// The operators of a prediction, `times` as often.
std::vector<OperatorCost> repeated(const Prediction& prediction, double times) {
  std::vector<OperatorCost> operators = prediction.operators;
  for (OperatorCost& cost : operators) {
    cost.count *= times;
    cost.latency *= times;
    if (cost.flops) *cost.flops *= times;
    if (cost.bytes) *cost.bytes *= times;
  }
  return operators;
}

std::optional<Seconds> seconds_at(const JsonView& json, const char* key) {
  const auto found = json.find_number(key, 0, kMost);
  return found ? std::optional(Seconds(*found)) : std::nullopt;
}

Bytes bytes_at(const JsonView& json, const char* key) { return Bytes(json.find_number(key, 0, kMost).value_or(0)); }

}  // namespace

Estimate moved(const Estimate& estimate, double latency_s, double low_s, double high_s, Origin origin) {
  Estimate out = estimate;
  out.text.clear();
  Prediction& p = out.answer.prediction;
  if (!p.latency) return out;
  const double ratio = latency_s / p.latency->value();
  p.latency = Seconds(latency_s);
  p.low = Seconds(low_s);
  p.high = Seconds(high_s);
  p.origin = weakest(p.origin, origin);
  if (p.throughput_tokens_per_s) *p.throughput_tokens_per_s /= ratio;
  Factors factors;
  add(factors, p.factors, ratio);
  factors.expert_parallel_efficiency_ratio = p.factors.expert_parallel_efficiency_ratio;
  p.factors = factors;
  for (OperatorCost& cost : p.operators) cost.latency *= ratio;
  if (p.training) {
    for (Seconds& phase : p.training->latency) phase *= ratio;
  }
  if (p.pipeline) {
    for (PipelineReport::Stage& stage : p.pipeline->stages) stage.latency *= ratio;
    for (Seconds& transfer : p.pipeline->transfers) transfer *= ratio;
    p.pipeline->fill_drain *= ratio;
    p.pipeline->period *= ratio;
  }
  if (p.speculation) {
    for (Seconds* time :
         {&p.speculation->tpot, &p.speculation->tpot_low, &p.speculation->tpot_high, &p.speculation->drafting}) {
      *time *= ratio;
    }
  }
  if (out.tpot) *out.tpot *= ratio;
  p.distribution.reset();
  return out;
}

Estimate summed(const std::vector<std::pair<double, Estimate>>& parts, const std::vector<InputValue>& inputs) {
  Estimate out = parts.front().second;
  Prediction& sum = out.answer.prediction;
  for (const InputValue& input : inputs) {
    auto& known = out.answer.query.inputs;
    const auto same = std::ranges::find(known, input.name, &InputValue::name);
    same != known.end() ? * same = input : known.emplace_back(input);
  }
  for (const auto& [times, part] : parts) {
    const Prediction& p = part.of();
    if (p.memory.total() > sum.memory.total()) sum.memory = p.memory;
    if (sum.status == Status::ok && p.status != Status::ok) {
      sum.status = p.status;
      sum.reason = p.reason;
    }
    for (const std::string& warning : p.warnings) {
      if (std::ranges::find(sum.warnings, warning) == sum.warnings.end()) sum.warnings.push_back(warning);
    }
  }
  sum.throughput_tokens_per_s.reset();
  sum.distribution.reset();
  sum.pipeline.reset();
  sum.speculation.reset();
  sum.factors = {};
  sum.operators.clear();
  sum.latency = sum.low = sum.high = std::nullopt;
  sum.flops = sum.flops ? std::optional(Flops(0)) : std::nullopt;
  if (sum.status != Status::ok) return out;
  Seconds latency, low, high, later, longest;
  double steps = 0;
  std::optional<double> alone = 0;  // what one device would take, over the number of devices
  for (const auto& [times, part] : parts) {
    const Prediction& p = part.of();
    latency += *p.latency * times;
    low += *p.low * times;
    high += *p.high * times;
    add(sum.factors, p.factors, times);
    const std::optional<double>& efficiency = p.factors.expert_parallel_efficiency_ratio;
    alone = alone && efficiency ? std::optional(*alone + *efficiency * p.latency->value() * times) : std::nullopt;
    if (sum.flops && p.flops) *sum.flops += *p.flops * times;
    const std::vector<OperatorCost> operators = repeated(p, times);
    sum.operators.insert(sum.operators.end(), operators.begin(), operators.end());
    sum.origin = weakest(sum.origin, p.origin);
    if (*p.latency * times > longest) {
      longest = *p.latency * times;
      sum.bottleneck = p.bottleneck;
    }
    if (&part != &parts.front().second) {
      later += *p.latency * times;
      steps += times;
    }
  }
  if (alone) sum.factors.expert_parallel_efficiency_ratio = *alone / latency.value();
  sum.latency = latency;
  sum.low = low;
  sum.high = high;
  if (steps > 0) out.tpot = later * (1 / steps);
  return out;
}

Estimate restored(const std::string& text, std::optional<double> tpot_s) {
  const Json document = parse_json(text, "Prediction");
  const JsonView json(document, "Prediction");
  Estimate out;
  out.text = text;
  if (tpot_s) out.tpot = Seconds(*tpot_s);
  Prediction& p = out.answer.prediction;
  for (const Status status : {Status::ok, Status::does_not_fit, Status::outside_range}) {
    if (status_name(status) == json.at("status").as_string()) p.status = status;
  }
  p.reason = json.find_string("reason").value_or("");
  p.latency = seconds_at(json, "latency_s");
  p.low = seconds_at(json, "latency_low_s");
  p.high = seconds_at(json, "latency_high_s");
  p.confidence_ratio = json.at("confidence_ratio").as_number();
  p.throughput_tokens_per_s = json.find_number("throughput_tokens_per_s");
  const JsonView factors = json.at("factors");
  p.factors = {seconds_at(factors, "all_to_all_s").value_or(Seconds(0)),
               seconds_at(factors, "memory_bandwidth_s").value_or(Seconds(0)),
               seconds_at(factors, "compute_s").value_or(Seconds(0)),
               seconds_at(factors, "routing_overhead_s").value_or(Seconds(0)),
               factors.find_number("expert_parallel_efficiency_ratio")};
  const JsonView memory = json.at("memory_per_rank");
  p.memory.weights = bytes_at(memory, "weights_bytes");
  p.memory.kv_cache = bytes_at(memory, "kv_cache_bytes");
  p.memory.activations = bytes_at(memory, "activations_bytes");
  p.memory.workspace = bytes_at(memory, "workspace_bytes");
  p.memory.gradients = bytes_at(memory, "gradients_bytes");
  p.memory.optimizer_states = bytes_at(memory, "optimizer_states_bytes");
  p.memory.saved_activations = bytes_at(memory, "saved_activations_bytes");
  if (const auto capacity = memory.find_number("capacity_bytes", 0, kMost)) p.memory.capacity = Bytes(*capacity);
  p.total_parameters = json.at("parameters").at("total").as_number(0, kMost);
  p.active_parameters = json.at("parameters").at("active").as_number(0, kMost);
  if (const auto flops = json.find_number("flops", 0, kMost)) p.flops = Flops(*flops);
  p.bottleneck = json.find_string("bottleneck").value_or("");
  const auto origin = json.find_string("origin");
  for (int i = 0; origin && i <= static_cast<int>(Origin::assumed); ++i) {
    if (to_string(static_cast<Origin>(i)) == *origin) p.origin = static_cast<Origin>(i);
  }
  const JsonView warnings = json.at("warnings");
  for (std::size_t i = 0; i < warnings.size(); ++i) p.warnings.push_back(warnings.at(i).as_string());
  return out;
}

}  // namespace moecast::python
