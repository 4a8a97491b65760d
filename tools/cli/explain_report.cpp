#include "tools/cli/explain_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "models/core/quantity_text.h"
#include "tools/loop/compare.h"

namespace moecast {
namespace {

/// Operators of one purpose.
struct Part {
  std::string name;
  Seconds latency;
  std::optional<Flops> flops{};  ///< of those that have some
  std::optional<Bytes> bytes{};
  std::vector<const OperatorCost*> operators{};
};

/// The longest first, and their operators too.
std::vector<Part> parts_of(const Prediction& prediction) {
  std::vector<Part> parts;
  for (const OperatorCost& cost : prediction.operators) {
    const std::string name = stage_of(cost);
    auto part = std::ranges::find(parts, name, &Part::name);
    if (part == parts.end()) part = parts.insert(parts.end(), Part{name, Seconds(0)});
    part->latency += cost.latency;
    if (cost.flops) part->flops = part->flops.value_or(Flops(0)) + *cost.flops;
    if (cost.bytes) part->bytes = part->bytes.value_or(Bytes(0)) + *cost.bytes;
    part->operators.push_back(&cost);
  }
  for (Part& part : parts) {
    std::ranges::stable_sort(part.operators, std::ranges::greater{}, &OperatorCost::latency);
  }
  std::ranges::stable_sort(parts, std::ranges::greater{}, &Part::latency);
  return parts;
}

std::optional<double> intensity_of(const std::optional<Flops>& flops, const std::optional<Bytes>& bytes) {
  if (!flops || !bytes || bytes->value() <= 0) return std::nullopt;
  return (*flops / *bytes).value();
}

std::string intensity_text(double value) { return fmt::format("{:.3g}", value); }

std::string interval_text(const std::optional<Seconds>& low, const std::optional<Seconds>& high) {
  return low && high ? fmt::format("{} to {}", format_seconds(*low), format_seconds(*high)) : "–";
}

std::string interval_of(const OperatorCost& cost) {
  if (!cost.half_width) return "–";
  return interval_text(cost.latency * std::exp(-*cost.half_width), cost.latency * std::exp(*cost.half_width));
}

/// The step, its parts, their operators: a level deeper, two columns further.
Table tree_of(const Prediction& p) {
  Table table{{"part", "times", "latency", "share", "90 % interval", "FLOP/B", "origin", "kernel"}, {}};
  if (!p.latency) return table;
  std::optional<Flops> flops;
  std::optional<Bytes> bytes;
  const std::vector<Part> parts = parts_of(p);
  for (const Part& part : parts) {
    if (part.flops) flops = flops.value_or(Flops(0)) + *part.flops;
    if (part.bytes) bytes = bytes.value_or(Bytes(0)) + *part.bytes;
  }
  const auto share = [&](Seconds seconds) { return format_percent(seconds / *p.latency); };
  table.rows.push_back({"step", "1", format_seconds(*p.latency), "100 %", interval_text(p.low, p.high),
                        format_or_dash(intensity_of(flops, bytes), intensity_text), std::string(to_string(p.origin)),
                        ""});
  for (const Part& part : parts) {
    table.rows.push_back({"· " + part.name, "", format_seconds(part.latency), share(part.latency), "",
                          format_or_dash(intensity_of(part.flops, part.bytes), intensity_text), "", ""});
    for (const OperatorCost* cost : part.operators) {
      table.rows.push_back({"· · " + cost->name, fmt::format("{:g}", cost->count), format_seconds(cost->latency),
                            share(cost->latency), interval_of(*cost),
                            format_or_dash(intensity_of(cost->flops, cost->bytes), intensity_text),
                            std::string(to_string(cost->origin)), cost->stage == part.name ? cost->kind : cost->stage});
    }
  }
  return table;
}

double saved_by(const Relaxation& relaxation, const Prediction& asked) {
  return (*asked.latency - *relaxation.prediction.latency) / *asked.latency;
}

Table relaxation_table(std::span<const Relaxation> relaxations, const Prediction& asked) {
  Table table{{"predicted again", "latency", "90 % interval", "saves"}, {}};
  for (const Relaxation& one : relaxations) {
    const Prediction& p = one.prediction;
    if (!p.latency || !asked.latency) continue;
    table.rows.push_back(
        {one.title, format_seconds(*p.latency), interval_text(p.low, p.high), format_percent(saved_by(one, asked))});
  }
  return table;
}

std::string help_text(const char* of, const Relaxation* best, const Prediction& asked) {
  if (best == nullptr) return fmt::format("{}: nothing saves time\n", of);
  std::string text = fmt::format("{}: {} saves {}", of, best->title, format_percent(saved_by(*best, asked)));
  // Removing a factor leaves all else as it is; of another deployment much else is unsure too.
  const bool overlap =
      best->kind == Relaxation::Kind::change && compare(asked, best->prediction).ranking == Ranking::undecided;
  return text + (overlap ? " (undecided: the intervals overlap)\n" : "\n");
}

template <class T>
Json quantity_or_null(const std::optional<T>& value) {
  return value ? Json(value->value()) : Json();
}

Json part_json(const Part& part, const Prediction& p) {
  return {{"name", part.name},
          {"latency_s", part.latency.value()},
          {"share_ratio", part.latency / *p.latency},
          {"flops", quantity_or_null(part.flops)},
          {"bytes", quantity_or_null(part.bytes)},
          {"arithmetic_intensity_flop_per_byte", number_or_null(intensity_of(part.flops, part.bytes))}};
}

Json relaxation_json(const Relaxation& one, const Prediction& asked) {
  const Prediction& p = one.prediction;
  const bool known = p.latency && asked.latency;
  return {{"kind", one.kind == Relaxation::Kind::factor ? "factor" : "change"},
          {"name", one.key},
          {"title", one.title},
          {"ranks", one.ranks},
          {"latency_s", quantity_or_null(p.latency)},
          {"latency_low_s", quantity_or_null(p.low)},
          {"latency_high_s", quantity_or_null(p.high)},
          {"saved_ratio", known ? Json(saved_by(one, asked)) : Json()}};
}

}  // namespace

std::string explain_text(const Answer& answer, std::span<const Relaxation> relaxations, Format format) {
  const Prediction& p = answer.prediction;
  std::string text = summary_text(answer);
  text += "\nWhere the time goes\n" + render_table(tree_of(p), format);
  text += "\nWhat would help\n" + render_table(relaxation_table(relaxations, p), format);
  if (p.latency) {
    text += '\n';
    text += help_text("most of the factors", most_helpful(relaxations, Relaxation::Kind::factor, p), p);
    text += help_text("most of what can be changed on as many devices",
                      most_helpful(relaxations, Relaxation::Kind::change, p), p);
  }
  return text + "\nWhat was assumed\n" + render_table(input_table(answer.query.inputs), format);
}

Json explain_json(const Answer& answer, std::span<const Relaxation> relaxations) {
  const Prediction& p = answer.prediction;
  Json json = prediction_json(answer);
  json["parts"] = Json::array();
  if (p.latency) {
    for (const Part& part : parts_of(p)) json["parts"].push_back(part_json(part, p));
  }
  json["relaxations"] = Json::array();
  for (const Relaxation& one : relaxations) {
    json["relaxations"].push_back(relaxation_json(one, p));
    if (one.kind == Relaxation::Kind::factor) {
      json["latency_without_s"][one.key] = quantity_or_null(one.prediction.latency);
    }
  }
  const auto best = [&](Relaxation::Kind kind) {
    const Relaxation* one = most_helpful(relaxations, kind, p);
    return one != nullptr ? Json(one->title) : Json();
  };
  json["helps_most"] = {{"factor", best(Relaxation::Kind::factor)}, {"change", best(Relaxation::Kind::change)}};
  return json;
}

}  // namespace moecast
