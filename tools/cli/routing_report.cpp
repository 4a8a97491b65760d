#include "tools/cli/routing_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"

namespace moecast {
namespace {

template <typename Value>
Json or_null(const std::optional<Value>& value) {
  return value ? Json(*value) : Json();
}

Json matrix_json(const ByteMatrix& matrix, double factor) {
  Json rows = Json::array();
  for (int from = 0; from < matrix.ranks(); ++from) {
    Json row = Json::array();
    for (int to = 0; to < matrix.ranks(); ++to) row.push_back(matrix.at(from, to) * factor);
    rows.push_back(std::move(row));
  }
  return rows;
}

Json metrics_json(const LoadMetrics& m) {
  return {{"max_over_mean_ratio", m.max_over_mean},
          {"cv_squared", m.cv_squared},
          {"gini", m.gini},
          {"entropy_nats", m.entropy_nats},
          {"normalised_entropy_ratio", m.normalised_entropy}};
}

Json step_json(const BalancingStep& s) {
  return {{"step", s.step},
          {"capacity_factor", or_null(s.capacity_factor)},
          {"slots_per_expert", or_null(s.slots)},
          {"asked_rows", s.asked},
          {"kept_rows", s.kept},
          {"dropped_rows", s.dropped},
          {"waiting_rows", s.waiting},
          {"padded_rows", s.padded},
          {"expert_max_over_mean_ratio", s.expert_max_over_mean},
          {"rank_max_over_mean_ratio", s.rank_max_over_mean},
          {"bias_range", s.bias_range},
          {"moved_copies", s.moved_copies},
          {"moved_bytes", or_null(s.moved_bytes)},
          {"move_s", or_null(s.move_s)}};
}

/// Copies of experts that the balancer moves away from where they would lie without it.
struct Move {
  std::int64_t copies = 0;
  std::optional<double> bytes;
  std::optional<double> seconds;  ///< of the rank that receives most, at the least an equal share
};

std::optional<Move> move_of(const RoutingResult& result) {
  const RoutingRequest& request = result.request;
  if (!request.before) return std::nullopt;
  const Placement& to = request.question.placement;
  Move move;
  move.copies = moved_copies(*request.before, to);
  if (!request.expert_bytes) return move;
  move.bytes = static_cast<double>(move.copies) * *request.expert_bytes;
  if (!request.link) return move;
  std::int64_t most = 0;
  for (int rank = 0; rank < to.ranks(); ++rank) {
    std::int64_t fetched = 0;
    const std::vector<std::int32_t> held = request.before->experts_of(rank);
    for (const std::int32_t expert : to.experts_of(rank)) fetched += std::ranges::binary_search(held, expert) ? 0 : 1;
    most = std::max(most, fetched);
  }
  move.seconds = static_cast<double>(most) * *request.expert_bytes / *request.link;
  return move;
}

std::string rows(double value) { return fmt::format("{:.6g}", value); }

std::string ranks_text(std::span<const std::int32_t> ranks) { return fmt::format("{}", fmt::join(ranks, "+")); }

[[noreturn]] void refuse_table(const std::string& what) {
  const auto near = nearest_name(what, {"summary", "experts", "ranks", "matrix", "placement", "steps"});
  throw UsageError(
      "--show", fmt::format("\"{}\" is no table", what),
      near ? fmt::format("did you mean \"{}\"?", *near) : "write summary, experts, ranks, matrix, placement or steps");
}

}  // namespace

std::vector<Json> routing_records(const RoutingResult& result, const std::string& what) {
  const RoutingAnswer& answer = result.answer;
  const RoutingRequest& request = result.request;
  std::vector<Json> records;
  if (what == "experts") {
    for (std::size_t e = 0; e < answer.asked.size(); ++e) {
      records.push_back({{"expert", e},
                         {"popularity_ratio", request.question.popularity[e]},
                         {"asked_rows", answer.asked[e]},
                         {"rows", answer.rows_per_expert[e]},
                         {"copies", request.question.placement.ranks_of(static_cast<int>(e)).size()}});
    }
  } else if (what == "ranks") {
    for (std::size_t r = 0; r < answer.rows_per_rank.size(); ++r) {
      const int rank = static_cast<int>(r);
      Json record{{"rank", r},
                  {"experts", request.question.placement.experts_of(rank).size()},
                  {"rows", answer.rows_per_rank[r]},
                  {"tokens", answer.tokens_per_rank[r]}};
      const auto bytes = [&](const std::optional<double>& row, double copies) {
        return row ? Json(*row * copies) : Json();
      };
      record["dispatch_sent_bytes"] = bytes(request.dispatch_row_bytes, answer.copies.egress(rank));
      record["dispatch_received_bytes"] = bytes(request.dispatch_row_bytes, answer.copies.ingress(rank));
      record["combine_sent_bytes"] = bytes(request.combine_row_bytes, answer.copies.ingress(rank));
      record["combine_received_bytes"] = bytes(request.combine_row_bytes, answer.copies.egress(rank));
      records.push_back(std::move(record));
    }
  } else if (what == "matrix") {
    for (int from = 0; from < answer.copies.ranks(); ++from) {
      Json record{{"sender", from}};
      for (int to = 0; to < answer.copies.ranks(); ++to) {
        const bool known = request.dispatch_row_bytes.has_value();
        record[fmt::format("rank_{}_{}", to, known ? "bytes" : "tokens")] =
            answer.copies.at(from, to) * request.dispatch_row_bytes.value_or(1);
      }
      records.push_back(std::move(record));
    }
  } else if (what == "placement") {
    for (int e = 0; e < request.question.placement.experts(); ++e) {
      records.push_back({{"expert", e}, {"ranks", ranks_text(request.question.placement.ranks_of(e))}});
    }
  } else if (what == "steps") {
    if (result.steps.empty()) throw UsageError("--show", "steps: none were asked for", "write --steps N");
    for (const BalancingStep& step : result.steps) records.push_back(step_json(step));
  } else {
    refuse_table(what);
  }
  return records;
}

Table routing_table(const RoutingResult& result, const std::string& what) {
  Table table;
  for (const Json& record : routing_records(result, what)) {
    std::vector<std::string> cells;
    for (const auto& [key, value] : record.items()) {
      if (table.rows.empty()) table.columns.push_back(key);
      cells.push_back(value.is_null()           ? "–"
                      : value.is_string()       ? value.get<std::string>()
                      : key.ends_with("_bytes") ? format_bytes(Bytes(value.get<double>()))
                      : key == "move_s"         ? format_seconds(Seconds(value.get<double>()))
                      : value.is_number_float() ? fmt::format("{:.4g}", value.get<double>())
                                                : value.dump());
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table routing_summary(const RoutingResult& result) {
  const RoutingAnswer& answer = result.answer;
  const RoutingQuestion& question = result.request.question;
  Table table{{"", "experts", "ranks"}, {}};
  const auto metrics = [&](const LoadMetrics& experts, const LoadMetrics& ranks, const std::string& of) {
    const auto both = [&](const char* name, double LoadMetrics::* field) {
      table.rows.push_back({name + of, fmt::format("{:.4g}", experts.*field), fmt::format("{:.4g}", ranks.*field)});
    };
    both("max / mean", &LoadMetrics::max_over_mean);
    both("CV squared", &LoadMetrics::cv_squared);
    both("Gini", &LoadMetrics::gini);
    both("entropy (nats)", &LoadMetrics::entropy_nats);
    both("entropy / most", &LoadMetrics::normalised_entropy);
  };
  metrics(answer.experts, answer.ranks, answer.expected ? " of expected rows" : "");
  if (answer.sampled) {
    metrics(answer.sampled->experts, answer.sampled->ranks,
            fmt::format(", mean of {} routings", answer.sampled->samples));
  }
  const auto one = [&](const char* name, std::string value) { table.rows.push_back({name, std::move(value), ""}); };
  one("rows", rows(answer.kept));
  one("experts a token", fmt::format("{:.4g}", answer.experts_per_token));
  one("experts with a row", fmt::format("{:.4g}", answer.distinct_experts));
  const bool blocks = question.row_block > 1;
  if (answer.slots) {
    one("slots an expert", fmt::format("{}", *answer.slots));
    one("dropped", rows(answer.dropped));
    one("moved", rows(answer.moved));
    one("queued", rows(answer.queued));
  }
  if (answer.slots || blocks) {
    one("padded", rows(answer.padded));
    one("wasted", format_or_dash(answer.wasted_flops, [](double flops) { return format_flops(Flops(flops)); }));
  }
  double leaving = answer.copies.total();
  one("copies that travel", rows(leaving));
  const auto sent = [&](const std::optional<double>& row) {
    return format_or_dash(row, [&](double bytes) { return format_bytes(Bytes(bytes * leaving)); });
  };
  one("dispatch", sent(result.request.dispatch_row_bytes));
  one("combine", sent(result.request.combine_row_bytes));
  if (const auto move = move_of(result)) {
    one("copies moved", fmt::format("{} of {}", move->copies, question.placement.copies()));
    one("moved weights", format_or_dash(move->bytes, [](double bytes) { return format_bytes(Bytes(bytes)); }));
    one("move takes", format_or_dash(move->seconds, [](double s) { return format_seconds(Seconds(s)); }));
  }
  return table;
}

Json routing_json(const RoutingResult& result) {
  const RoutingAnswer& answer = result.answer;
  const RoutingRequest& request = result.request;
  const RoutingQuestion& question = request.question;
  const auto beside = [&](LoadMetrics SampledMetrics::* of) {
    if (!answer.sampled) return Json();
    Json json = metrics_json((*answer.sampled).*of);
    json["samples"] = answer.sampled->samples;
    return json;
  };
  Json experts = metrics_json(answer.experts);
  experts["sampled"] = beside(&SampledMetrics::experts);
  experts["popularity_ratio"] = question.popularity;
  experts["asked_rows"] = answer.asked;
  experts["rows"] = answer.rows_per_expert;
  Json ranks = metrics_json(answer.ranks);
  ranks["sampled"] = beside(&SampledMetrics::ranks);
  ranks["rows"] = answer.rows_per_rank;
  ranks["tokens"] = answer.tokens_per_rank;
  Json json{{"tokens", question.tokens},
            {"samples", answer.expected ? Json() : Json(question.samples)},
            {"seed", question.seed},
            {"metrics_of", answer.expected ? "expected rows" : "samples"},
            {"experts_per_token", answer.experts_per_token},
            {"distinct_experts", answer.distinct_experts},
            {"slots_per_expert", or_null(answer.slots)},
            {"kept_rows", answer.kept},
            {"dropped_rows", answer.dropped},
            {"moved_rows", answer.moved},
            {"queued_rows", answer.queued},
            {"padded_rows", answer.padded},
            {"wasted_flops", or_null(answer.wasted_flops)},
            {"experts", std::move(experts)},
            {"ranks", std::move(ranks)},
            {"dispatch_tokens", matrix_json(answer.copies, 1)}};
  const ByteMatrix back = answer.copies.transposed();
  json["dispatch_bytes"] =
      request.dispatch_row_bytes ? matrix_json(answer.copies, *request.dispatch_row_bytes) : Json();
  json["combine_bytes"] = request.combine_row_bytes ? matrix_json(back, *request.combine_row_bytes) : Json();
  Json placement = Json::array();
  for (int e = 0; e < question.placement.experts(); ++e) {
    const auto on = question.placement.ranks_of(e);
    placement.push_back(std::vector<std::int32_t>(on.begin(), on.end()));
  }
  json["placement"] = std::move(placement);
  const auto move = move_of(result);
  json["move"] =
      move ? Json{{"copies", move->copies}, {"bytes", or_null(move->bytes)}, {"latency_s", or_null(move->seconds)}}
           : Json();
  Json steps = Json::array();
  for (const BalancingStep& step : result.steps) steps.push_back(step_json(step));
  json["steps"] = std::move(steps);
  return json;
}

}  // namespace moecast
