#include "tools/cli/prediction_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <variant>

#include "models/core/quantity_text.h"
#include "tools/cli/training_report.h"

namespace moecast {
namespace {

template <class T>
Json value_or_null(const std::optional<T>& quantity) {
  return quantity ? Json(quantity->value()) : Json();
}

/// A step that keeps something for its backward pass.
bool trains(const MemoryPerRank& memory) {
  return (memory.gradients + memory.optimizer_states + memory.saved_activations).value() > 0;
}

Json factors_json(const Prediction& prediction) {
  Json json;
  const bool known = prediction.latency.has_value();
  const auto seconds = [&](Seconds value) { return known ? Json(value.value()) : Json(); };
  const Factors& factors = prediction.factors;
  json["all_to_all_s"] = seconds(factors.all_to_all);
  json["memory_bandwidth_s"] = seconds(factors.memory_bandwidth);
  json["compute_s"] = seconds(factors.compute);
  json["routing_overhead_s"] = seconds(factors.routing_overhead);
  json["expert_parallel_efficiency_ratio"] =
      known && factors.expert_parallel_efficiency_ratio ? Json(*factors.expert_parallel_efficiency_ratio) : Json();
  return json;
}

}  // namespace

Json memory_json(const MemoryPerRank& memory) {
  Json json;
  json["weights_bytes"] = memory.weights.value();
  json["kv_cache_bytes"] = memory.kv_cache.value();
  json["activations_bytes"] = memory.activations.value();
  json["workspace_bytes"] = memory.workspace.value();
  json["total_bytes"] = memory.total().value();
  json["capacity_bytes"] = value_or_null(memory.capacity);
  if (trains(memory)) {
    json["gradients_bytes"] = memory.gradients.value();
    json["optimizer_states_bytes"] = memory.optimizer_states.value();
    json["saved_activations_bytes"] = memory.saved_activations.value();
  }
  return json;
}

Json inputs_json(const std::vector<InputValue>& inputs) {
  Json json;
  Json defaults = Json::array();
  for (const InputValue& input : inputs) {
    json[input.name] = std::visit(
        [](const auto& value) -> Json {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::monostate>)
            return {};
          else
            return value;
        },
        input.value);
    if (!input.given) defaults.push_back(input.name);
  }
  json["defaults"] = std::move(defaults);
  return json;
}

namespace {

Json operators_json(const std::vector<OperatorCost>& operators, bool training) {
  Json list = Json::array();
  for (const OperatorCost& cost : operators) {
    Json json;
    json["kind"] = cost.kind;
    json["name"] = cost.name;
    json["stage"] = cost.stage;
    json["count"] = cost.count;
    json["latency_s"] = cost.latency.value();
    json["origin"] = std::string(to_string(cost.origin));
    const auto end = [&](double sign) {
      return cost.half_width ? Json(cost.latency.value() * std::exp(sign * *cost.half_width)) : Json();
    };
    json["latency_low_s"] = end(-1);
    json["latency_high_s"] = end(1);
    json["flops"] = value_or_null(cost.flops);
    json["bytes"] = value_or_null(cost.bytes);
    if (training) json["phase"] = std::string(to_string(cost.phase));
    list.push_back(std::move(json));
  }
  return list;
}

Json distribution_json(const std::optional<StepDistribution>& distribution) {
  if (!distribution) return {};
  const StepDistribution& d = *distribution;
  return {{"samples", d.samples},
          {"seed", d.seed},
          {"mean_s", d.mean.value()},
          {"p50_s", d.p50.value()},
          {"p90_s", d.p90.value()},
          {"p99_s", d.p99.value()},
          {"row_imbalance_ratio", d.row_imbalance},
          {"port_imbalance_ratio", d.port_imbalance},
          {"distinct_experts_ratio", d.distinct_ratio},
          {"dropped_rows_ratio", d.dropped_ratio},
          {"expert_balance_ratio", d.expert_balance ? Json(*d.expert_balance) : Json()},
          {"contended_layers", d.contended_layers}};
}

Json offload_json(const std::optional<OffloadUse>& offload) {
  if (!offload) return {};
  const OffloadUse& o = *offload;
  return {{"policy", std::string(to_string(o.policy))},
          {"overlap", std::string(to_string(o.overlap))},
          {"experts", o.experts},
          {"resident_experts", o.resident},
          {"hit_ratio", o.hit_ratio},
          {"missed_experts", o.missed},
          {"expert_bytes", o.expert.value()},
          {"fetched_bytes", o.fetched.value()},
          {"host_bytes", o.host.value()},
          {"host_link_bytes_per_s", value_or_null(o.link)},
          {"host_link_origin", o.link ? Json(std::string(to_string(o.link_origin))) : Json()},
          {"transfer_s", o.link ? Json(o.transfer.value()) : Json()},
          {"exposed_s", o.link ? Json(o.exposed.value()) : Json()}};
}

std::string offload_line(const OffloadUse& o) {
  std::string text = fmt::format("{}, {} of {} experts a layer stay, {} elsewhere; hits {}", to_string(o.policy),
                                 o.resident, o.experts, format_bytes(o.host), format_percent(o.hit_ratio));
  if (o.fetched.value() <= 0) return text;
  text += fmt::format(", {:.2f} experts a layer fetched: {} a step", o.missed, format_bytes(o.fetched));
  if (!o.link) return text;
  return text + fmt::format(" over {} ({}): {}, of which {} is waited for", format_bytes_per_second(*o.link),
                            to_string(o.link_origin), format_seconds(o.transfer), format_seconds(o.exposed));
}

std::string distribution_line(const StepDistribution& d, int ranks) {
  std::string text = fmt::format("P50 {}, P90 {}, P99 {} over {} routings; fullest {} {:.2f} x the mean",
                                 format_seconds(d.p50), format_seconds(d.p90), format_seconds(d.p99), d.samples,
                                 ranks > 1 ? "rank" : "expert", d.row_imbalance);
  text += fmt::format(", experts with rows {}", format_percent(d.distinct_ratio));
  if (ranks > 1 && d.expert_balance) text += fmt::format(", balance of experts {:.2f}", *d.expert_balance);
  if (d.dropped_ratio > 0) text += fmt::format(", rows dropped {}", format_percent(d.dropped_ratio));
  return text;
}

Json pipeline_json(const std::optional<PipelineReport>& pipeline) {
  if (!pipeline) return {};
  const PipelineReport& p = *pipeline;
  Json json{{"micro_batches", p.micro_batches},
            {"fill_drain_s", p.fill_drain.value()},
            {"period_s", p.period.value()},
            {"fill_drain_bubble_ratio", p.fill_drain_bubble_ratio},
            {"period_bubble_ratio", p.period_bubble_ratio},
            {"stages", Json::array()},
            {"transfers_s", Json::array()}};
  for (const PipelineReport::Stage& stage : p.stages) {
    json["stages"].push_back(
        {{"first_layer", stage.first_layer}, {"layers", stage.layers}, {"latency_s", stage.latency.value()}});
  }
  for (const Seconds transfer : p.transfers) json["transfers_s"].push_back(transfer.value());
  return json;
}

std::string pipeline_line(const PipelineReport& p, Phase phase) {
  const auto slowest =
      std::ranges::max_element(p.stages, [](const auto& a, const auto& b) { return a.latency < b.latency; });
  if (phase == Phase::train) {
    return fmt::format(
        "{} stages, {} micro-batches; slowest stage {} ({} layers) a micro-batch; all passes {} (bubbles {})",
        p.stages.size(), p.micro_batches, format_seconds(slowest->latency), slowest->layers,
        format_seconds(p.fill_drain), format_percent(p.fill_drain_bubble_ratio));
  }
  return fmt::format(
      "{} stages, {} micro-batches; slowest stage {} ({} layers); a step alone {} (bubbles {}), "
      "a token while generating {} (bubbles {}){}",
      p.stages.size(), p.micro_batches, format_seconds(slowest->latency), slowest->layers, format_seconds(p.fill_drain),
      format_percent(p.fill_drain_bubble_ratio), format_seconds(p.period), format_percent(p.period_bubble_ratio),
      phase == Phase::decode ? ", which is the latency" : "");
}

Json speculation_json(const std::optional<SpeculationReport>& speculation) {
  if (!speculation) return {};
  const SpeculationReport& s = *speculation;
  return {{"draft_tokens", s.draft_tokens},       {"acceptance_ratio", s.acceptance_ratio},
          {"tokens_per_step", s.tokens_per_step}, {"tpot_s", s.tpot.value()},
          {"tpot_low_s", s.tpot_low.value()},     {"tpot_high_s", s.tpot_high.value()},
          {"drafting_s", s.drafting.value()}};
}

std::string speculation_line(const SpeculationReport& s) {
  return fmt::format(
      "{} guessed, {} right where those before were: {:.2f} tokens a step, TPOT {} ({} to {}); guessing "
      "takes {} of the step",
      s.draft_tokens, format_percent(s.acceptance_ratio), s.tokens_per_step, format_seconds(s.tpot),
      format_seconds(s.tpot_low), format_seconds(s.tpot_high), format_seconds(s.drafting));
}

std::string interval(const Prediction& prediction) {
  if (!prediction.low || !prediction.high) return "–";
  return fmt::format("{} to {}", format_seconds(*prediction.low), format_seconds(*prediction.high));
}

std::string throughput(const Prediction& prediction) {
  if (!prediction.throughput_tokens_per_s) return "–";
  return fmt::format("{}/s", format_count(*prediction.throughput_tokens_per_s));
}

std::string memory_line(const MemoryPerRank& memory) {
  if (trains(memory)) {
    return fmt::format(
        "{} a rank: weights {}, gradients {}, optimiser {}, saved activations {}, others {}; capacity {}",
        format_bytes(memory.total()), format_bytes(memory.weights), format_bytes(memory.gradients),
        format_bytes(memory.optimizer_states), format_bytes(memory.saved_activations),
        format_bytes(memory.activations + memory.workspace), format_or_dash(memory.capacity, format_bytes));
  }
  return fmt::format("{} a rank: weights {}, KV cache {}, activations {}, workspace {}; capacity {}",
                     format_bytes(memory.total()), format_bytes(memory.weights), format_bytes(memory.kv_cache),
                     format_bytes(memory.activations), format_bytes(memory.workspace),
                     format_or_dash(memory.capacity, format_bytes));
}

std::string factor_line(const Prediction& prediction) {
  const Factors& factors = prediction.factors;
  const auto part = [&](const char* name, Seconds value) {
    return fmt::format("{} {} ({})", name, format_seconds(value), format_percent(value / *prediction.latency));
  };
  const auto efficiency = factors.expert_parallel_efficiency_ratio;
  return fmt::format("{}, {}, {}, {}; expert-parallel efficiency {}", part("compute", factors.compute),
                     part("memory bandwidth", factors.memory_bandwidth), part("routing", factors.routing_overhead),
                     part("all-to-all", factors.all_to_all),
                     efficiency ? fmt::format("{:.2f}", *efficiency) : "unknown");
}

}  // namespace

std::string status_name(Status status) {
  switch (status) {
    case Status::ok: return "ok";
    case Status::does_not_fit: return "does_not_fit";
    case Status::outside_range: return "outside_range";
  }
  return "unknown";
}

Json outcome_json(const Prediction& prediction) {
  Json json;
  json["status"] = status_name(prediction.status);
  json["reason"] = prediction.reason.empty() ? Json() : Json(prediction.reason);
  json["latency_s"] = value_or_null(prediction.latency);
  json["latency_low_s"] = value_or_null(prediction.low);
  json["latency_high_s"] = value_or_null(prediction.high);
  json["confidence_ratio"] = prediction.confidence_ratio;
  json["throughput_tokens_per_s"] =
      prediction.throughput_tokens_per_s ? Json(*prediction.throughput_tokens_per_s) : Json();
  json["factors"] = factors_json(prediction);
  json["memory_per_rank"] = memory_json(prediction.memory);
  json["parameters"]["total"] = prediction.total_parameters;
  json["parameters"]["active"] = prediction.active_parameters;
  json["flops"] = value_or_null(prediction.flops);
  json["bottleneck"] = prediction.bottleneck.empty() ? Json() : Json(prediction.bottleneck);
  json["origin"] = prediction.latency ? Json(std::string(to_string(prediction.origin))) : Json();
  return json;
}

Json prediction_json(const Answer& answer) {
  const Prediction& prediction = answer.prediction;
  Json json = outcome_json(prediction);
  json["operators"] = operators_json(prediction.operators, prediction.training.has_value());
  if (prediction.training) json["training"] = training_json(prediction);
  json["inputs"] = inputs_json(answer.query.inputs);
  json["warnings"] = prediction.warnings;
  json["distribution"] = distribution_json(prediction.distribution);
  json["pipeline"] = pipeline_json(prediction.pipeline);
  json["offload"] = offload_json(prediction.offload);
  json["speculation"] = speculation_json(prediction.speculation);
  return json;
}

std::string summary_text(const Answer& answer) {
  const Prediction& prediction = answer.prediction;
  const auto line = [](const char* name, const std::string& value) { return fmt::format("{:<12}{}\n", name, value); };
  std::string text;
  if (prediction.latency) {
    text += line("latency", fmt::format("{}   90 % interval {}, {}", format_seconds(*prediction.latency),
                                        interval(prediction), to_string(prediction.origin)));
    if (prediction.distribution)
      text += line("routing", distribution_line(*prediction.distribution, answer.query.deployment.ep));
    if (prediction.pipeline) {
      text += line("pipeline", pipeline_line(*prediction.pipeline, answer.query.workload.phase));
    }
    if (prediction.speculation) text += line("speculation", speculation_line(*prediction.speculation));
    text += line("throughput", throughput(prediction) + " (tokens)");
    if (prediction.training) text += line("phases", training_line(prediction));
    text += line("bottleneck", prediction.bottleneck);
    text += line("factors", factor_line(prediction));
  } else {
    text += line("status", fmt::format("{}: {}", status_name(prediction.status), prediction.reason));
  }
  if (prediction.offload) text += line("offload", offload_line(*prediction.offload));
  text += line("memory", memory_line(prediction.memory));
  text += line("parameters",
               fmt::format("{} total, {} active; {} a step of a rank", format_count(prediction.total_parameters),
                           format_count(prediction.active_parameters), format_or_dash(prediction.flops, format_flops)));
  return text;
}

Table summary_table(const std::vector<Answer>& answers) {
  Table table;
  if (answers.empty()) return table;
  for (const auto& [flag, value] : answers.front().query.varied) table.columns.push_back(flag.substr(2));
  const bool sampled =
      std::ranges::any_of(answers, [](const Answer& a) { return a.prediction.distribution.has_value(); });
  table.columns.insert(table.columns.end(), {"latency", "90 % interval"});
  if (sampled) table.columns.insert(table.columns.end(), {"P50", "P90", "P99"});
  table.columns.insert(table.columns.end(), {"tokens/s", "bottleneck", "memory", "origin"});
  for (const Answer& answer : answers) {
    const Prediction& prediction = answer.prediction;
    std::vector<std::string> row;
    for (const auto& [flag, value] : answer.query.varied) row.push_back(std::to_string(value));
    row.push_back(prediction.latency ? format_seconds(*prediction.latency) : status_name(prediction.status));
    row.push_back(interval(prediction));
    if (sampled) {
      const auto& d = prediction.distribution;
      for (const auto quantile : {&StepDistribution::p50, &StepDistribution::p90, &StepDistribution::p99}) {
        row.push_back(d ? format_seconds((*d).*quantile) : "–");
      }
    }
    row.push_back(prediction.throughput_tokens_per_s ? format_count(*prediction.throughput_tokens_per_s) : "–");
    row.push_back(prediction.bottleneck.empty() ? "–" : prediction.bottleneck);
    row.push_back(format_bytes(prediction.memory.total()));
    row.emplace_back(to_string(prediction.origin));
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table input_table(const std::vector<InputValue>& inputs) {
  Table table{{"input", "value", "given"}, {}};
  const Json values = inputs_json(inputs);
  for (const InputValue& input : inputs) {
    const Json& value = values.at(input.name);
    table.rows.push_back({input.name, value.is_string() ? value.get<std::string>() : dump_json_line(value),
                          input.given ? "yes" : "default"});
  }
  return table;
}

}  // namespace moecast
