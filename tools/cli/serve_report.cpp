#include "tools/cli/serve_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "models/core/quantity_text.h"
#include "tools/cli/prediction_report.h"

namespace moecast {
namespace {

using QuantilesOf = std::optional<ServiceQuantiles> (*)(const ServiceOutcome&);

constexpr double kSecondsPerHour = 3600;
constexpr double kMillion = 1e6;

std::optional<ServiceQuantiles> ttft_of(const ServiceOutcome& outcome) { return outcome.ttft; }
std::optional<ServiceQuantiles> tpot_of(const ServiceOutcome& outcome) { return outcome.tpot; }
std::optional<ServiceQuantiles> end_to_end_of(const ServiceOutcome& outcome) { return outcome.end_to_end; }
std::optional<ServiceQuantiles> wait_of(const ServiceOutcome& outcome) { return outcome.wait; }

/// nullopt where there is none that means anything.
const ServiceOutcome* outcome_of(const std::optional<ServiceStudy>& study) {
  return study && study->stable && study->outcome ? &*study->outcome : nullptr;
}

/// Of the simulation even where the queue grows: how full, how many, not how long.
const ServiceOutcome* simulated(const ServiceAnswer& answer) {
  return answer.middle.outcome ? &*answer.middle.outcome : nullptr;
}

std::optional<double> median_of(const ServiceOutcome* outcome, QuantilesOf of) {
  if (outcome == nullptr) return std::nullopt;
  const std::optional<ServiceQuantiles> quantiles = of(*outcome);
  return quantiles ? std::optional(quantiles->p50) : std::nullopt;
}

/// Requests fall into other batches where steps are quicker, so that now and then they wait longer: the interval holds
/// all three simulations.
std::optional<double> median_end(const ServiceAnswer& answer, bool low, QuantilesOf of) {
  const std::optional<double> middle = median_of(outcome_of(answer), of);
  const std::optional<double> quick = median_of(outcome_of(answer.quick), of);
  const std::optional<double> slow = median_of(outcome_of(answer.slow), of);
  if (!middle || !quick || (!low && !slow)) return std::nullopt;
  const double other = slow.value_or(*middle);
  return low ? std::min({*middle, *quick, other}) : std::max({*middle, *quick, other});
}

void add_quantiles(Json& json, const std::string& name, const ServiceAnswer& answer, QuantilesOf of, bool ends) {
  const ServiceOutcome* outcome = outcome_of(answer);
  const std::optional<ServiceQuantiles> q = outcome != nullptr ? of(*outcome) : std::nullopt;
  const auto add = [&](const char* which, double ServiceQuantiles::* value) {
    json[fmt::format("{}_{}_s", name, which)] = q ? Json(*q.*value) : Json();
  };
  add("mean", &ServiceQuantiles::mean);
  add("p50", &ServiceQuantiles::p50);
  if (ends) {
    json[name + "_p50_low_s"] = number_or_null(median_end(answer, true, of));
    json[name + "_p50_high_s"] = number_or_null(median_end(answer, false, of));
  }
  add("p90", &ServiceQuantiles::p90);
  add("p95", &ServiceQuantiles::p95);
  add("p99", &ServiceQuantiles::p99);
}

/// One record a priority, where there are several.
Json priorities_json(const ServiceOutcome* outcome) {
  Json list = Json::array();
  if (outcome == nullptr) return list;
  for (const ServiceClass& one : outcome->classes) {
    Json record{{"priority", one.priority}, {"requests", one.requests}};
    const auto add = [&](const std::string& name, const std::optional<ServiceQuantiles>& q) {
      record[name + "_p50_s"] = q ? Json(q->p50) : Json();
      record[name + "_p90_s"] = q ? Json(q->p90) : Json();
      record[name + "_p99_s"] = q ? Json(q->p99) : Json();
    };
    add("ttft", one.ttft);
    add("tpot", one.tpot);
    add("end_to_end", one.end_to_end);
    list.push_back(std::move(record));
  }
  return list;
}

std::optional<double> saturation_of(const std::optional<ServiceStudy>& study) {
  return study ? study->saturation_per_s : std::nullopt;
}

struct Throughput {
  double requests_per_s = 0;
  double tokens_per_s = 0;  ///< generated
};

/// What goes on for ever: of the simulation, or, where the queue grows, of saturation.
std::optional<Throughput> throughput_of(const ServiceAnswer& answer) {
  const ServiceOutcome* outcome = simulated(answer);
  if (outcome == nullptr) return std::nullopt;
  if (answer.middle.stable) return Throughput{outcome->requests_per_s, outcome->output_tokens_per_s};
  const double rate = *answer.middle.saturation_per_s;
  const auto requests = static_cast<double>(outcome->jobs.size());
  return Throughput{rate, rate * static_cast<double>(outcome->counts.generated_tokens) / requests};
}

std::optional<double> cost_per_million(const ServiceAnswer& answer) {
  const std::optional<Throughput> throughput = throughput_of(answer);
  if (!throughput || !answer.price_per_hour || throughput->tokens_per_s <= 0) return std::nullopt;
  return *answer.price_per_hour * answer.gpus / kSecondsPerHour / throughput->tokens_per_s * kMillion;
}

std::string quantile_line(const ServiceAnswer& answer, QuantilesOf of, bool ends) {
  const ServiceOutcome* outcome = outcome_of(answer);
  const std::optional<ServiceQuantiles> q = outcome != nullptr ? of(*outcome) : std::nullopt;
  if (!q) return "–";
  std::string text = "P50 " + seconds_text(q->p50);
  if (ends) {
    text += fmt::format(" ({} to {})", format_or_dash(median_end(answer, true, of), seconds_text),
                        format_or_dash(median_end(answer, false, of), seconds_text));
  }
  return text + fmt::format(", P90 {}, P95 {}, P99 {}, mean {}", seconds_text(q->p90), seconds_text(q->p95),
                            seconds_text(q->p99), seconds_text(q->mean));
}

std::string load_line(const ServiceAnswer& answer) {
  const ServiceStudy& study = answer.middle;
  std::string text;
  if (study.offered_per_s) text = rate_text(*study.offered_per_s) + " requests/s, ";
  text += format_or_dash(study.saturation_per_s, rate_text) + " requests/s at saturation (" +
          format_or_dash(saturation_of(answer.slow), rate_text) + " to " +
          format_or_dash(saturation_of(answer.quick), rate_text) + ")";
  if (study.load_ratio) text += ": " + format_percent(*study.load_ratio);
  return text;
}

std::string throughput_line(const ServiceAnswer& answer) {
  const std::optional<Throughput> throughput = throughput_of(answer);
  if (!throughput) return "–";
  return fmt::format("{:.1f} tokens/s, {:.1f} a GPU on {}; {} requests/s{}", throughput->tokens_per_s,
                     throughput->tokens_per_s / answer.gpus, answer.gpus, rate_text(throughput->requests_per_s),
                     answer.middle.stable ? "" : " (saturation)");
}

std::string cache_line(const ServiceAnswer& answer, const ServiceOutcome& outcome) {
  std::string text = fmt::format("mean {}, most {} of {} tokens an instance, {} preemptions",
                                 format_or_dash(outcome.kv_mean_ratio, format_percent),
                                 format_or_dash(outcome.kv_most_ratio, format_percent), answer.cache_tokens,
                                 outcome.counts.preemptions);
  if (outcome.counts.cached_tokens > 0) {
    text += fmt::format(", {} prompt tokens found in it", outcome.counts.cached_tokens);
  }
  return text;
}

}  // namespace

const ServiceOutcome* outcome_of(const ServiceAnswer& answer) {
  return answer.status == Status::ok && answer.middle.stable && answer.middle.outcome ? &*answer.middle.outcome
                                                                                      : nullptr;
}

std::string seconds_text(double seconds) { return format_seconds(Seconds(seconds)); }

std::string rate_text(double rate) { return fmt::format("{:.3g}", rate); }

std::string service_status(const ServiceAnswer& answer) {
  if (answer.status != Status::ok) return status_name(answer.status);
  return answer.middle.stable ? "ok" : "unstable";
}

Json service_json(const ServiceAnswer& answer) {
  const ServiceStudy& study = answer.middle;
  const ServiceOutcome* outcome = simulated(answer);
  const ServiceOutcome* lasting = outcome_of(answer);
  Json json;
  json["status"] = service_status(answer);
  json["reason"] = answer.status == Status::ok ? study.reason : answer.reason;
  add_quantiles(json, "ttft", answer, ttft_of, true);
  add_quantiles(json, "tpot", answer, tpot_of, true);
  add_quantiles(json, "end_to_end", answer, end_to_end_of, false);
  add_quantiles(json, "queue_wait", answer, wait_of, false);
  json["confidence_ratio"] = 0.9;
  json["offered_requests_per_s"] = number_or_null(study.offered_per_s);
  json["saturation_requests_per_s"] = number_or_null(study.saturation_per_s);
  json["saturation_low_requests_per_s"] = number_or_null(saturation_of(answer.slow));
  json["saturation_high_requests_per_s"] = number_or_null(saturation_of(answer.quick));
  json["load_ratio"] = number_or_null(study.load_ratio);
  json["queue_growth_requests_per_s"] = number_or_null(study.queue_growth_per_s);
  const auto add = [&](const char* name, const ServiceOutcome* from, const auto& value) {
    json[name] = from != nullptr ? Json(value(*from)) : Json();
  };
  using Simulated = const ServiceOutcome&;
  const std::optional<Throughput> throughput = throughput_of(answer);
  json["requests_per_s"] = throughput ? Json(throughput->requests_per_s) : Json();
  json["output_tokens_per_s"] = throughput ? Json(throughput->tokens_per_s) : Json();
  json["output_tokens_per_gpu_s"] = throughput ? Json(throughput->tokens_per_s / answer.gpus) : Json();
  add("goodput_ratio", lasting, [](Simulated o) { return number_or_null(o.met_ratio); });
  add("goodput_requests_per_s", lasting,
      [](Simulated o) { return o.met_ratio ? Json(*o.met_ratio * o.requests_per_s) : Json(); });
  json["cost_per_million_tokens"] = number_or_null(cost_per_million(answer));
  add("kv_occupancy_mean_ratio", outcome, [](Simulated o) { return number_or_null(o.kv_mean_ratio); });
  add("kv_occupancy_max_ratio", outcome, [](Simulated o) { return number_or_null(o.kv_most_ratio); });
  json["kv_capacity_tokens"] = answer.cache_tokens > 0 ? Json(answer.cache_tokens) : Json();
  add("preemptions", outcome, [](Simulated o) { return o.counts.preemptions; });
  add("recomputed_tokens", outcome, [](Simulated o) { return o.counts.recomputed_tokens; });
  add("prefilled_tokens", outcome, [](Simulated o) { return o.counts.prefilled_tokens; });
  add("cached_tokens", outcome, [](Simulated o) { return o.counts.cached_tokens; });
  add("generated_tokens", outcome, [](Simulated o) { return o.counts.generated_tokens; });
  add("queue_length_mean", lasting, [](Simulated o) { return o.waiting_mean; });
  add("queue_length_max", lasting, [](Simulated o) { return o.waiting_most; });
  add("in_flight_mean", lasting, [](Simulated o) { return o.in_flight_mean; });
  add("utilisation_ratio", outcome, [](Simulated o) { return o.utilisation_ratio; });
  add("kv_transfer_mean_s", lasting, [](Simulated o) { return number_or_null(o.transfer_mean_s); });
  add("steps", outcome, [](Simulated o) { return o.counts.steps; });
  json["priorities"] = priorities_json(lasting);
  add("requests", outcome, [](Simulated o) { return o.jobs.size(); });
  add("measured_requests", outcome, [](Simulated o) { return o.measured; });
  add("duration_s", outcome, [](Simulated o) { return o.duration_s; });
  json["gpus"] = answer.gpus;
  json["memory_per_rank"] = memory_json(answer.memory);
  json["inputs"] = inputs_json(answer.inputs);
  json["warnings"] = answer.warnings;
  return json;
}

std::string service_text(const ServiceAnswer& answer, Format format) {
  std::string text;
  const auto line = [&](const std::string& name, const std::string& value) {
    text += fmt::format("{:<12}{}\n", name, value);
  };
  const ServiceOutcome* outcome = simulated(answer);
  const std::string status = service_status(answer);
  const std::string& reason = answer.status == Status::ok ? answer.middle.reason : answer.reason;
  line("status", reason.empty() ? status : status + ": " + reason);
  if (outcome != nullptr) {
    line("load", load_line(answer));
    if (answer.middle.stable) {
      line("TTFT", quantile_line(answer, ttft_of, true));
      line("TPOT", quantile_line(answer, tpot_of, true));
      line("end to end", quantile_line(answer, end_to_end_of, false));
      line("queue", fmt::format("{:.3g} waiting on average, most {}; wait {}", outcome->waiting_mean,
                                outcome->waiting_most, quantile_line(answer, wait_of, false)));
      for (const ServiceClass& one : outcome->classes) {
        line(fmt::format("priority {}", one.priority),
             fmt::format("{} requests; TTFT P50 {}, P99 {}; end to end P50 {}, P99 {}", one.requests,
                         seconds_text(one.ttft.p50), seconds_text(one.ttft.p99), seconds_text(one.end_to_end.p50),
                         seconds_text(one.end_to_end.p99)));
      }
      if (outcome->met_ratio) line("goals", format_percent(*outcome->met_ratio) + " of the requests meet all");
      if (outcome->transfer_mean_s) line("transfer", seconds_text(*outcome->transfer_mean_s) + " a cache");
    }
    line("throughput", throughput_line(answer));
    if (const auto cost = cost_per_million(answer)) line("cost", fmt::format("{:.3f} a million tokens", *cost));
    std::string engine =
        fmt::format("busy {} of the time, {} steps", format_percent(outcome->utilisation_ratio), outcome->counts.steps);
    if (answer.middle.stable) engine += fmt::format(", {:.3g} requests in flight", outcome->in_flight_mean);
    line("engine", engine);
    line("KV cache", cache_line(answer, *outcome));
    line("requests", fmt::format("{}, {} of them measured, in {}", outcome->jobs.size(), outcome->measured,
                                 seconds_text(outcome->duration_s)));
  }
  line("memory", fmt::format("{} a rank: weights {}, KV cache {}", format_bytes(answer.memory.total()),
                             format_bytes(answer.memory.weights), format_bytes(answer.memory.kv_cache)));
  return text + "\nWhat was assumed\n" + render_table(input_table(answer.inputs), format);
}

Table service_table(const std::vector<ServiceAnswer>& answers) {
  Table table{{"load", "status", "of saturation", "TTFT P50", "TTFT P99", "TPOT P50", "TPOT P99", "tokens/s a GPU",
               "KV mean", "busy", "goals"},
              {}};
  for (const ServiceAnswer& answer : answers) {
    const ServiceOutcome* outcome = simulated(answer);
    const ServiceOutcome* lasting = outcome_of(answer);
    const auto cell = [](const ServiceOutcome* from, QuantilesOf of, double ServiceQuantiles::* value) {
      const std::optional<ServiceQuantiles> q = from != nullptr ? of(*from) : std::nullopt;
      return q ? seconds_text(*q.*value) : std::string("–");
    };
    const std::optional<Throughput> throughput = throughput_of(answer);
    std::string load = "–";
    if (answer.middle.offered_per_s) load = rate_text(*answer.middle.offered_per_s) + "/s";
    for (const InputValue& input : answer.inputs) {
      const auto* clients = std::get_if<std::int64_t>(&input.value);
      if (input.name == "concurrency" && clients != nullptr) load = fmt::format("{} clients", *clients);
    }
    table.rows.push_back(
        {load, service_status(answer), format_or_dash(answer.middle.load_ratio, format_percent),
         cell(lasting, ttft_of, &ServiceQuantiles::p50), cell(lasting, ttft_of, &ServiceQuantiles::p99),
         cell(lasting, tpot_of, &ServiceQuantiles::p50), cell(lasting, tpot_of, &ServiceQuantiles::p99),
         throughput ? fmt::format("{:.1f}", throughput->tokens_per_s / answer.gpus) : "–",
         outcome != nullptr ? format_or_dash(outcome->kv_mean_ratio, format_percent) : "–",
         outcome != nullptr ? format_percent(outcome->utilisation_ratio) : "–",
         lasting != nullptr ? format_or_dash(lasting->met_ratio, format_percent) : "–"});
  }
  return table;
}

}  // namespace moecast
