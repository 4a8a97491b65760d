#include "profiler/mpi/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

constexpr double kMostBytes = 64.0 * (1ULL << 30);
/// Collectives count floats in int.
constexpr double kMostBuffer = 4.0 * (1ULL << 30);
constexpr int kMostRanks = 4096;

constexpr std::array<std::pair<MpiKind, std::string_view>, 10> kKinds{{{MpiKind::point_to_point, "point_to_point"},
                                                                       {MpiKind::all_reduce, "all_reduce"},
                                                                       {MpiKind::all_gather, "all_gather"},
                                                                       {MpiKind::reduce_scatter, "reduce_scatter"},
                                                                       {MpiKind::all_to_all, "all_to_all"},
                                                                       {MpiKind::all_to_all_v, "all_to_all_v"},
                                                                       {MpiKind::attention, "attention"},
                                                                       {MpiKind::local_work, "local_work"},
                                                                       {MpiKind::experts, "experts"},
                                                                       {MpiKind::moe_layer, "moe_layer"}}};

MpiLayer parse_layer(const JsonView& view, int ranks) {
  view.refuse_unknown_keys({"tokens", "hidden", "width", "experts", "top_k", "gated", "zipf", "seed", "tp", "heads"});
  MpiLayer layer;
  layer.tokens = view.at("tokens").as_int(1, 1 << 22);
  layer.hidden = view.at("hidden").as_int(1, 1 << 18);
  layer.width = view.at("width").as_int(1, 1 << 18);
  layer.experts = static_cast<int>(view.at("experts").as_int(1, 65536));
  layer.top_k = static_cast<int>(view.at("top_k").as_int(1, layer.experts));
  layer.gated = view.at("gated").as_bool();
  layer.zipf = view.at("zipf").as_number(0, 10);
  layer.seed = static_cast<std::uint64_t>(view.at("seed").as_int(0));
  layer.tp = static_cast<int>(view.find_int("tp", 1, ranks).value_or(1));
  layer.heads = static_cast<int>(view.find_int("heads", 0, 1 << 16).value_or(0));
  const auto divide = [&](std::int64_t by, std::int64_t what, const char* of) {
    if (what % by != 0) throw InputError(view.where(), fmt::format("{} do not divide {} {}", by, what, of));
  };
  divide(layer.tp, ranks, "ranks");
  divide(layer.tp, layer.width, "columns of an expert");
  if (layer.heads > 0) divide(layer.heads, layer.hidden, "columns of a token");
  const int groups = ranks / layer.tp;
  if (layer.experts % groups != 0) {
    throw InputError(view.where(), fmt::format("{} ranks do not divide {} experts", groups, layer.experts));
  }
  return layer;
}

Json layer_json(const MpiLayer& layer) {
  return {{"tokens", layer.tokens}, {"hidden", layer.hidden}, {"width", layer.width}, {"experts", layer.experts},
          {"top_k", layer.top_k},   {"gated", layer.gated},   {"zipf", layer.zipf},   {"seed", layer.seed},
          {"tp", layer.tp},         {"heads", layer.heads}};
}

bool has_layer(MpiKind kind) {
  return kind == MpiKind::attention || kind == MpiKind::local_work || kind == MpiKind::experts ||
         kind == MpiKind::moe_layer;
}

}  // namespace

std::string_view to_string(MpiKind kind) {
  return std::ranges::find_if(kKinds, [&](const auto& known) { return known.first == kind; })->second;
}

std::optional<MpiKind> find_mpi_kind(std::string_view name) {
  const auto found = std::ranges::find_if(kKinds, [&](const auto& known) { return known.second == name; });
  return found == kKinds.end() ? std::nullopt : std::optional(found->first);
}

ByteMatrix parse_byte_matrix(const JsonView& view, int ranks) {
  const auto bad = [&](const std::string& what) { throw InputError(view.where(), what, "bytes, sender by sender"); };
  if (!view.is_array() || view.size() != static_cast<std::size_t>(ranks)) {
    bad(fmt::format("is no matrix of {} rows", ranks));
  }
  ByteMatrix matrix(ranks);
  for (int from = 0; from < ranks; ++from) {
    const JsonView row = view.at(static_cast<std::size_t>(from));
    if (!row.is_array() || row.size() != static_cast<std::size_t>(ranks)) {
      throw InputError(row.where(), fmt::format("is no row of {} numbers", ranks), "byte matrices are square");
    }
    for (int to = 0; to < ranks; ++to) {
      matrix.at(from, to) = row.at(static_cast<std::size_t>(to)).as_number(0, kMostBytes);
    }
    if (matrix.egress(from) > kMostBytes) throw InputError(row.where(), "sends more than 64 GiB");
  }
  if (!(matrix.total() > 0)) bad("sums to nothing between ranks");
  return matrix;
}

MpiPlan parse_mpi_plan(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const JsonView root(json, where);
  root.refuse_unknown_keys({"ranks", "repeats", "points"});
  MpiPlan plan;
  plan.ranks = static_cast<int>(root.at("ranks").as_int(1, kMostRanks));
  plan.repeats = static_cast<int>(root.at("repeats").as_int(1, 10000));
  const JsonView points = root.at("points");
  for (std::size_t i = 0; i < points.size(); ++i) {
    const JsonView view = points.at(i);
    view.refuse_unknown_keys({"kind", "bytes", "matrix", "layer", "rows", "touched", "at_once"});
    MpiPoint point;
    const auto kind = find_mpi_kind(view.at("kind").as_string());
    if (!kind) throw InputError(view.at("kind").where(), "is no kind of measurement", "e.g. all_to_all_v");
    point.kind = *kind;
    if (view.has("at_once") && (!has_layer(point.kind) || point.kind == MpiKind::moe_layer)) {
      throw InputError(view.at("at_once").where(), "goes with attention, local_work and experts");
    }
    if (point.kind == MpiKind::all_to_all_v) {
      point.matrix = parse_byte_matrix(view.at("matrix"), plan.ranks);
    } else if (has_layer(point.kind)) {
      point.layer = parse_layer(view.at("layer"), plan.ranks);
      if (point.kind == MpiKind::experts) {
        point.touched = view.at("touched").as_int(1, point.layer.experts / (plan.ranks / point.layer.tp));
        point.rows = view.at("rows").as_int(point.touched, 1 << 24);
      }
      if (point.kind == MpiKind::attention && point.layer.heads == 0) {
        throw InputError(view.at("layer").where(), "has no heads to attend with", "\"heads\": 8");
      }
      point.at_once = static_cast<int>(view.find_int("at_once", 1, plan.ranks).value_or(1));
    } else {
      point.bytes = view.at("bytes").as_number(0, kMostBuffer);
    }
    plan.points.push_back(std::move(point));
  }
  return plan;
}

std::string mpi_plan_text(const MpiPlan& plan) {
  Json json{{"ranks", plan.ranks}, {"repeats", plan.repeats}, {"points", Json::array()}};
  for (const MpiPoint& point : plan.points) {
    Json one{{"kind", to_string(point.kind)}};
    if (point.matrix) {
      one["matrix"] = Json::array();
      for (int from = 0; from < plan.ranks; ++from) {
        const auto row = point.matrix->values().subspan(static_cast<std::size_t>(from * plan.ranks),
                                                        static_cast<std::size_t>(plan.ranks));
        one["matrix"].push_back(std::vector<double>(row.begin(), row.end()));
      }
    } else if (has_layer(point.kind)) {
      one["layer"] = layer_json(point.layer);
      if (point.kind == MpiKind::experts) one["rows"] = point.rows, one["touched"] = point.touched;
      if (point.kind != MpiKind::moe_layer) one["at_once"] = point.at_once;
    } else {
      one["bytes"] = point.bytes;
    }
    json["points"].push_back(std::move(one));
  }
  return dump_json_line(json) + "\n";
}

MpiResults parse_mpi_results(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const JsonView root(json, where);
  root.refuse_unknown_keys({"library", "points"});
  MpiResults results;
  results.library = root.at("library").as_string();
  const JsonView points = root.at("points");
  for (std::size_t i = 0; i < points.size(); ++i) {
    MpiTimes times;
    const JsonView seconds = points.at(i).at("seconds");
    for (std::size_t s = 0; s < seconds.size(); ++s) times.seconds.push_back(seconds.at(s).as_number(0, 1e6));
    const JsonView phases = points.at(i).at("phases");
    for (const std::string& name : phases.keys()) times.phases[name] = phases.at(name).as_number(0, 1e6);
    results.points.push_back(std::move(times));
  }
  return results;
}

std::string mpi_results_text(const MpiResults& results) {
  Json json{{"library", results.library}, {"points", Json::array()}};
  for (const MpiTimes& times : results.points) {
    Json phases = Json::object();
    for (const auto& [name, value] : times.phases) phases[name] = value;
    json["points"].push_back({{"seconds", times.seconds}, {"phases", phases}});
  }
  return dump_json_line(json) + "\n";
}

Assignment draw_mpi_routing(const MpiLayer& layer, int ranks) {
  ExpertLoad load;
  load.kind = layer.zipf > 0 ? LoadKind::zipf : LoadKind::uniform;
  load.parameter = layer.zipf;
  load.seed = layer.seed;
  RoutingPolicy policy;
  policy.top_k = layer.top_k;
  Router router(policy, expert_popularity(load, layer.experts));
  Random random(layer.seed);
  Assignment assignment;
  router.draw(layer.tokens * ranks, random, assignment);
  return assignment;
}

MpiTraffic mpi_traffic(const MpiLayer& layer, int ranks, const Assignment& assignment) {
  MpiTraffic traffic;
  traffic.dispatch = ByteMatrix(ranks);
  traffic.rows_per_expert.assign(static_cast<std::size_t>(layer.experts), 0);
  const int of_group = layer.experts / (ranks / layer.tp);
  const double row = 4.0 * static_cast<double>(layer.hidden);
  for (std::int64_t token = 0; token < layer.tokens * ranks; ++token) {
    for (const std::int32_t expert : assignment.of(static_cast<std::size_t>(token))) {
      ++traffic.rows_per_expert[static_cast<std::size_t>(expert)];
      const int first = expert / of_group * layer.tp;
      for (int rank = first; rank < first + layer.tp; ++rank) {
        traffic.dispatch.at(static_cast<int>(token / layer.tokens), rank) += row;
      }
    }
  }
  return traffic;
}

ByteMatrix mpi_count_bytes(const MpiLayer& layer, int ranks) {
  return ByteMatrix::uniform(ranks, 4.0 * layer.experts * layer.tp);
}

}  // namespace moecast
