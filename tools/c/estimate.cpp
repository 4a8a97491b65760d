#include "tools/c/estimate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "models/core/error.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_numbers.h"

namespace moecast {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
constexpr std::uint32_t kFactors = MOECAST_WITHOUT_ALL_TO_ALL | MOECAST_WITHOUT_MEMORY_BANDWIDTH |
                                   MOECAST_WITHOUT_ROUTING_OVERHEAD | MOECAST_WITHOUT_EXPERT_PARALLEL_EFFICIENCY |
                                   MOECAST_WITHOUT_IMBALANCE;

const NumberFlag& flag_named(std::string_view name) {
  return *std::ranges::find(number_flags(), name, [](const NumberFlag& flag) { return std::string_view(flag.name); });
}

/// The ranges of the fields are those of the flags.
struct Ranges {
  const NumberFlag& hidden = flag_named("--hidden");
  const NumberFlag& width = flag_named("--width");
  const NumberFlag& experts = flag_named("--experts");
  const NumberFlag& top_k = flag_named("--top-k");
  const NumberFlag& tokens = flag_named("--tokens");
  const NumberFlag& shared_experts = flag_named("--shared-experts");
  const NumberFlag& copies = flag_named("--copies");
  const NumberFlag& tp = flag_named("--tp");
  const NumberFlag& ep = flag_named("--ep");
  const NumberFlag& dp = flag_named("--dp");
  const NumberFlag& moe_tp = flag_named("--moe-tp");
};

std::int64_t in_range(std::int64_t value, const NumberFlag& flag) {
  if (value >= flag.low && value <= flag.high) return value;
  throw UsageError(flag.name, "is " + std::to_string(value) + ", out of range",
                   "expected " + std::to_string(flag.low) + " to " + std::to_string(flag.high));
}

bool yes_or_no(std::int32_t value, const char* field) {
  if (value == 0 || value == 1) return value == 1;
  throw UsageError(field, "is " + std::to_string(value), "write 0 or 1; start from MOECAST_MOE_CONFIG_INIT");
}

std::string text_or(const char* text, const char* fallback) { return text == nullptr ? fallback : text; }

std::optional<double> capacity_factor(double factor) {
  if (factor == 0) return std::nullopt;
  if (factor >= 1e-6 && factor <= 1e6) return factor;
  throw UsageError("capacity_factor", "is " + std::to_string(factor) + ", out of range",
                   "expected 1e-6 to 1e6, or 0 for no limit");
}

Architecture architecture_of(const moecast_moe_config& config, const Ranges& ranges) {
  LayerChoice layer;
  layer.hidden = in_range(config.hidden, ranges.hidden);
  layer.width = in_range(config.width, ranges.width);
  layer.experts = in_range(config.experts, ranges.experts);
  layer.top_k = in_range(config.top_k, ranges.top_k);
  layer.shared_experts = in_range(config.shared_experts, ranges.shared_experts);
  layer.gated = yes_or_no(config.gated, "gated");
  layer.pad = yes_or_no(config.pad, "pad");
  layer.capacity_factor = capacity_factor(config.capacity_factor);
  layer.activation = text_or(config.activation, "");
  layer.overflow = text_or(config.overflow, "");
  if (!layer.capacity_factor && (layer.pad || !layer.overflow.empty())) {
    throw UsageError(layer.pad ? "pad" : "overflow", "means nothing without a capacity", "set capacity_factor");
  }
  return make_layer(layer);
}

Workload workload_of_layer(const moecast_moe_config& config, const Ranges& ranges, bool gpu) {
  Workload workload;
  workload.phase = Phase::prefill;
  workload.prompt = in_range(config.tokens, ranges.tokens);
  workload.copies = in_range(config.copies, ranges.copies);
  if (gpu && workload.copies != 1) {
    throw UsageError("copies", "of a layer in a row are executed on CPUs only", "leave it at 1");
  }
  if (config.rows != nullptr) {
    if (config.load != nullptr) throw UsageError("rows", "and load exclude each other", "give one of the two");
    if (config.rows_count != static_cast<std::uint64_t>(config.experts)) {
      throw UsageError("rows_count", "is " + std::to_string(config.rows_count),
                       "expected as many as experts: " + std::to_string(config.experts));
    }
    const std::span rows(config.rows, config.rows_count);
    for (const std::int64_t row : rows) require_size(row, 0, "rows");
    workload.rows_per_expert.assign(rows.begin(), rows.end());
  } else if (config.rows_count != 0) {
    throw UsageError("rows", "is NULL, but rows_count is not 0", "set both or neither");
  }
  const bool usual = gpu && config.rows == nullptr;
  workload.load = parse_load(text_or(config.load, usual ? "log-normal:1" : "uniform"), config.seed);
  return workload;
}

Deployment deployment_of_layer(const moecast_moe_config& config, const Ranges& ranges, Deployment deployment) {
  deployment.tp = static_cast<int>(in_range(config.tp, ranges.tp));
  deployment.ep = static_cast<int>(in_range(config.ep, ranges.ep));
  deployment.dp = static_cast<int>(in_range(config.dp, ranges.dp));
  if (config.moe_tp != 0) deployment.moe_tp = static_cast<int>(in_range(config.moe_tp, ranges.moe_tp));
  return deployment;
}

Without without_of(std::uint32_t factors) {
  if ((factors & ~kFactors) != 0) {
    throw UsageError("without", "holds bits that are no factor: " + std::to_string(factors & ~kFactors),
                     "or MOECAST_WITHOUT_... together");
  }
  Without without;
  without.all_to_all = (factors & MOECAST_WITHOUT_ALL_TO_ALL) != 0;
  without.memory_bandwidth = (factors & MOECAST_WITHOUT_MEMORY_BANDWIDTH) != 0;
  without.routing_overhead = (factors & MOECAST_WITHOUT_ROUTING_OVERHEAD) != 0;
  without.expert_imbalance = (factors & MOECAST_WITHOUT_IMBALANCE) != 0;
  return without;
}

/// What is left when n ranks are n times as fast as one.
void make_parallelism_perfect(Prediction& prediction) {
  const std::optional<double> ratio = prediction.factors.expert_parallel_efficiency_ratio;
  if (!prediction.latency) return;
  if (!ratio) {
    prediction.status = Status::outside_range;
    prediction.reason = "the expert-parallel efficiency is not known";
    prediction.latency = prediction.low = prediction.high = std::nullopt;
    return;
  }
  const double left = std::min(1.0, *ratio);  // removing it never slows
  for (auto* time : {&prediction.latency, &prediction.low, &prediction.high}) **time *= left;
  if (prediction.throughput_tokens_per_s) *prediction.throughput_tokens_per_s /= left;
}

template <class T>
double value_of(const std::optional<T>& quantity) {
  return quantity ? quantity->value() : kUnknown;
}

/// As much of the text as there is room for; a character is not cut in two.
template <std::size_t N>
void write_text(const std::string& text, char (&to)[N]) {
  std::size_t size = std::min(text.size(), N - 1);
  const auto continues = [&] { return size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80; };
  while (size > 0 && continues()) --size;
  std::memcpy(to, text.data(), size);
  to[size] = '\0';
}

moecast_origin origin_number(Origin origin) {
  switch (origin) {
    case Origin::measured: return MOECAST_ORIGIN_MEASURED;
    case Origin::interpolated: return MOECAST_ORIGIN_INTERPOLATED;
    case Origin::fitted: return MOECAST_ORIGIN_FITTED;
    case Origin::extrapolated: return MOECAST_ORIGIN_EXTRAPOLATED;
    case Origin::datasheet: return MOECAST_ORIGIN_DATASHEET;
    case Origin::assumed: return MOECAST_ORIGIN_ASSUMED;
  }
  return MOECAST_ORIGIN_ASSUMED;
}

moecast_outcome outcome_number(Status status) {
  switch (status) {
    case Status::ok: return MOECAST_OUTCOME_OK;
    case Status::does_not_fit: return MOECAST_OUTCOME_DOES_NOT_FIT;
    case Status::outside_range: return MOECAST_OUTCOME_OUTSIDE_RANGE;
  }
  return MOECAST_OUTCOME_OUTSIDE_RANGE;
}

void write_estimate(const Prediction& p, moecast_estimate& out) {
  const bool known = p.latency.has_value();
  const auto share = [&](Seconds seconds) { return known ? seconds.value() : kUnknown; };
  out.outcome = outcome_number(p.status);
  out.origin = known ? origin_number(p.origin) : MOECAST_ORIGIN_ASSUMED;
  out.latency_s = value_of(p.latency);
  out.latency_low_s = value_of(p.low);
  out.latency_high_s = value_of(p.high);
  out.confidence_ratio = p.confidence_ratio;
  out.all_to_all_s = share(p.factors.all_to_all);
  out.memory_bandwidth_s = share(p.factors.memory_bandwidth);
  out.routing_overhead_s = share(p.factors.routing_overhead);
  out.expert_parallel_efficiency_ratio =
      known ? p.factors.expert_parallel_efficiency_ratio.value_or(kUnknown) : kUnknown;
  out.compute_s = share(p.factors.compute);
  out.throughput_tokens_per_s = known ? p.throughput_tokens_per_s.value_or(kUnknown) : kUnknown;
  out.weights_bytes = p.memory.weights.value();
  out.activations_bytes = p.memory.activations.value();
  out.workspace_bytes = p.memory.workspace.value();
  out.memory_bytes = p.memory.total().value();
  out.memory_capacity_bytes = value_of(p.memory.capacity);
  out.flops = value_of(p.flops);
  out.total_parameters = p.total_parameters;
  out.active_parameters = p.active_parameters;
  write_text(known ? p.bottleneck : std::string(), out.bottleneck);
  write_text(p.reason, out.reason);
}

}  // namespace

void estimate_layer(const AskedMachine& machine, const moecast_moe_config& config, moecast_estimate& estimate) {
  static const Ranges ranges;
  if (config.reserved != 0) {
    throw UsageError("reserved", "is " + std::to_string(config.reserved), "start from MOECAST_MOE_CONFIG_INIT");
  }
  const HardwareChoice& hardware = machine.setting.hardware;
  Query query{architecture_of(config, ranges),
              deployment_of_layer(config, ranges, machine.setting.deployment),
              workload_of_layer(config, ranges, hardware.gpu),
              without_of(config.without),
              {},
              {}};
  fill_in_assumed(query, hardware);
  Prediction prediction = predict_query(*machine.predictor, query, "");
  if ((config.without & MOECAST_WITHOUT_EXPERT_PARALLEL_EFFICIENCY) != 0) make_parallelism_perfect(prediction);
  write_estimate(prediction, estimate);
}

}  // namespace moecast
