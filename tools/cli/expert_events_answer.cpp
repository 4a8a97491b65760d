#include "tools/cli/expert_events_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "sim/analytic/expert_timeline.h"
#include "tools/cli/command.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/prediction_report.h"
#include "tools/cli/query_answers.h"

namespace moecast {
namespace {

constexpr const char* kExpertGroup = "Experts that come and go";

Json optional_s(const std::optional<Seconds>& seconds) { return seconds ? Json(seconds->value()) : Json(); }

Json moves_json(const std::vector<ExpertMove>& moves) {
  Json list = Json::array();
  for (const ExpertMove& move : moves) {
    list.push_back({{"expert", move.expert}, {"from", move.from ? Json(*move.from) : Json()}, {"to", move.to}});
  }
  return list;
}

Json entry_json(const TimelineEntry& entry) {
  Json json;
  json["step"] = entry.event ? Json(entry.event->step) : Json();
  json["event"] = entry.event ? Json(std::string(to_string(entry.event->kind))) : Json();
  json["expert"] = entry.change.expert ? Json(*entry.change.expert) : Json();
  json["experts"] = entry.experts;
  json["places_per_rank"] = entry.places;
  json["moves"] = moves_json(entry.change.moves);
  json["moved_bytes"] = entry.moved.value();
  json["transfer_s"] = optional_s(entry.transfer);
  json["recapture_s"] = optional_s(entry.recapture);
  json["transition_s"] = optional_s(entry.transition);
  json["unknown"] = entry.unknown.empty() ? Json() : Json(entry.unknown);
  json["fullest_rank_rows"] = entry.fullest_rows;
  json["row_imbalance_ratio"] = entry.row_imbalance;
  const Json outcome = outcome_json(entry.steady);
  for (const auto& [key, value] : outcome.items()) json[key] = value;
  return json;
}

Table timeline_table(const std::vector<TimelineEntry>& timeline) {
  Table table{{"step", "event", "experts", "moved", "transfer", "recapture", "transition", "fullest rank", "step takes",
               "90 % interval"},
              {}};
  for (const TimelineEntry& entry : timeline) {
    const Prediction& p = entry.steady;
    const auto seconds = [&](const std::optional<Seconds>& s) {
      return entry.event ? format_or_dash(s, format_seconds) : std::string();
    };
    std::string event = "start";
    if (entry.event) {
      event = std::string(to_string(entry.event->kind));
      if (entry.change.expert) event += fmt::format(" {}", *entry.change.expert);
    }
    table.rows.push_back(
        {entry.event ? std::to_string(entry.event->step) : "", event, std::to_string(entry.experts),
         entry.event ? format_bytes(entry.moved) : "", seconds(entry.transfer), seconds(entry.recapture),
         seconds(entry.transition), fmt::format("{:.1f} rows, {:.2f} x", entry.fullest_rows, entry.row_imbalance),
         p.latency ? format_seconds(*p.latency) : status_name(p.status),
         p.low && p.high ? fmt::format("{} to {}", format_seconds(*p.low), format_seconds(*p.high)) : "–"});
  }
  return table;
}

void show_notes(const std::vector<TimelineEntry>& timeline, const ExpertEvents& events,
                std::vector<std::string>& notes) {
  const auto once = [&](const std::string& text) {
    if (!text.empty() && std::ranges::find(notes, text) == notes.end()) notes.push_back(text);
  };
  for (const TimelineEntry& entry : timeline) {
    for (const std::string& text : entry.steady.warnings) once(text);
    if (!entry.unknown.empty()) once("unknown: " + entry.unknown);
    if (!entry.steady.reason.empty()) once(entry.steady.reason);
  }
  if (events.pruned == PrunedRows::dropped) {
    once("rows of removed experts are dropped; the time of a step still has them, and is an upper bound");
  }
  for (const std::string& text : notes) warn(text);
}

}  // namespace

void add_expert_event_options(const Command& command, ExpertEventFlags& flags) {
  const auto text = [&](const char* name, std::string& value, const char* type, const char* help) {
    command.add_option(name, value, help).type_name(type).group(kExpertGroup).not_empty();
  };
  text("--events", flags.file, "FILE",
       R"(Experts that are added and removed: {"moecast_expert_events": 1, "events": [{"step": 100, "add": {}}, )"
       R"({"step": 200, "remove": 64 or "least_loaded"}, {"step": 300, "rebalance": true}]})");
  text("--recapture", flags.recapture, "TIME",
       "With --events: capturing all graphs of the engine again, at least 0, e.g. 12s (default: unknown)");
}

int answer_expert_events(QueryOptions options, const ExpertEventFlags& flags) {
  if (!options.offload.policy.empty()) {
    throw UsageError("--events", "and --offload exclude each other", "give one of the two");
  }
  const Format format = parse_format(options.format);
  std::optional<BytesPerSecond> link;
  if (!options.offload.host_link.empty()) {
    link = parse_bytes_per_second(options.offload.host_link, "--host-link");
    if (link->value() <= 0) throw UsageError("--host-link", "must be above 0", "write e.g. 25GB/s");
    options.offload.host_link.clear();  // of the experts that come, not of an offload
  }
  std::optional<Seconds> recapture;
  if (!flags.recapture.empty()) recapture = parse_seconds(flags.recapture, "--recapture");
  const ExpertEvents events = parse_expert_events(read_text_file(flags.file), flags.file);
  const DataFolders folders = find_data_folders(options.data);
  const HardwareChoice hardware = choose_hardware(options.hw, folders);
  refuse_backend_typo(options.backend, hardware);
  const QueryOptions asked = with_usual_load(options, hardware.gpu);
  std::vector<Query> queries = make_queries(asked, folders, hardware.threads);
  if (queries.size() != 1) {
    throw UsageError("--events", fmt::format("happen to one deployment, these ranges make {}", queries.size()),
                     "leave out the ranges");
  }
  Query& query = queries.front();
  complete_query(query, options, hardware);
  query.inputs.push_back({"events", flags.file, true});
  if (link) query.inputs.push_back({"host_link_bytes_per_s", link->value(), true});
  if (recapture) query.inputs.push_back({"recapture_s", recapture->value(), true});
  const std::unique_ptr<Predictor> predictor = load_predictor(hardware, folders);
  const TransitionCosts costs =
      transition_costs(read_profile(hardware.folder), link, recapture, query.deployment.threads);
  std::vector<TimelineEntry> timeline;
  try {
    timeline = expert_timeline(*predictor, query.architecture, query.deployment, query.workload, events, costs,
                               hardware.gpu && query.workload.load.kind == LoadKind::log_normal);
  } catch (const InputError& error) {
    if (error.where() == "events") throw InputError(flags.file, error.problem(), error.hint());
    blame_flag(error, options.model);
  }
  std::vector<std::string> notes;
  show_notes(timeline, events, notes);
  if (format == Format::table || format == Format::md) {
    write_stdout(render_table(timeline_table(timeline), format));
    return 0;
  }
  if (format == Format::json) {
    Json list = Json::array();
    for (const TimelineEntry& entry : timeline) list.push_back(entry_json(entry));
    const Json all{{"timeline", list}, {"inputs", inputs_json(query.inputs)}, {"warnings", notes}};
    write_stdout(render_records({all}, format, true));
    return 0;
  }
  std::vector<Json> records;
  for (const TimelineEntry& entry : timeline) records.push_back(entry_json(entry));
  write_stdout(render_records(records, format, false));
  return 0;
}

}  // namespace moecast
