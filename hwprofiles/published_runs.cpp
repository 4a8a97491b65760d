#include "hwprofiles/published_runs.h"

#include <algorithm>
#include <filesystem>

#include "models/core/dtype.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/framework.h"
#include "models/core/json.h"

namespace moecast {
namespace {

constexpr std::int64_t kSchemaVersion = 1;
constexpr double kMostSteps = 1e6;
constexpr std::int64_t kMostDraftTokens = 64;
constexpr std::size_t kMostRules = 10'000;

std::vector<std::string> strings_of(const JsonView& json, std::string_view key) {
  std::vector<std::string> all;
  if (!json.has(key)) return all;
  const JsonView list = json.at(key);
  if (!list.is_array() || list.size() == 0) throw InputError(list.where(), "is no list of texts");
  for (std::size_t i = 0; i < list.size(); ++i) all.push_back(list.at(i).as_string());
  return all;
}

std::array<double, 2> pair_of(const JsonView& json) {
  if (json.size() != 2) throw InputError(json.where(), "is not [first, second]");
  return {json.at(std::size_t{0}).as_number(1, 1e9), json.at(std::size_t{1}).as_number(1, 1e9)};
}

std::vector<std::array<double, 2>> lengths_of(const JsonView& json) {
  std::vector<std::array<double, 2>> all;
  if (!json.has("lengths")) return all;
  const JsonView list = json.at("lengths");
  if (!list.is_array() || list.size() == 0) throw InputError(list.where(), "is no list of [prompt, output]");
  for (std::size_t i = 0; i < list.size(); ++i) all.push_back(pair_of(list.at(i)));
  return all;
}

bool among(const std::vector<std::string>& some, const std::string& one) {
  return some.empty() || std::ranges::find(some, one) != some.end();
}

bool begins(const std::vector<std::string>& some, const std::string& one) {
  return some.empty() || std::ranges::any_of(some, [&](const std::string& begin) { return one.starts_with(begin); });
}

bool among(const std::vector<std::array<double, 2>>& lengths, const ServingRow& row) {
  return lengths.empty() || std::ranges::find(lengths, std::array{row.prompt, row.output}) != lengths.end();
}

}  // namespace

bool PublishedRuns::Rule::holds(const ServingRow& row) const {
  return row.engine == engine && begins(models, row.model) && among(systems, row.system) &&
         among(versions, row.version) && among(expert_dtypes, row.expert_dtype) && among(lengths, row) &&
         tp.holds(row.tp) && dp.holds(row.dp) && concurrency.holds(row.concurrency) &&
         (measured_from.empty() || row.date >= measured_from);
}

PublishedRuns::Rule PublishedRuns::parse_rule(const JsonView& json) {
  json.refuse_unknown_keys({"engine",           "models",         "systems",      "versions",   "expert_dtypes",
                            "lengths",          "measured_from",  "tp",           "dp",         "concurrency",
                            "batch_wait_steps", "receive_steps",  "draft_tokens", "acceptance", "superseded",
                            "defective",        "expert_kernels", "kv_dtype",     "all_reduce", "source"});
  static_cast<void>(json.at("source").as_string());
  Rule rule;
  rule.engine = json.at("engine").as_string();
  if (const auto day = json.find_string("measured_from")) {
    if (!is_day(*day)) {
      throw InputError(json.at("measured_from").where(), "\"" + *day + "\" is no day", "write 2026-01-14");
    }
    rule.measured_from = *day;
  }
  rule.models = strings_of(json, "models");
  rule.systems = strings_of(json, "systems");
  rule.versions = strings_of(json, "versions");
  rule.expert_dtypes = strings_of(json, "expert_dtypes");
  rule.lengths = lengths_of(json);
  const auto range = [&](std::string_view key, Range& into) {
    if (!json.has(key)) return;
    const std::array<double, 2> ends = pair_of(json.at(key));
    if (ends[1] < ends[0]) throw InputError(json.at(key).where(), "goes down");
    into = {ends[0], ends[1]};
  };
  range("tp", rule.tp);
  range("dp", rule.dp);
  range("concurrency", rule.concurrency);
  // Held until the time is over; polled, a prompt waits half of the interval in the mean.
  rule.wait_steps = json.find_number("batch_wait_steps", 0, kMostSteps).value_or(0) +
                    json.find_number("receive_steps", 0, kMostSteps).value_or(0) / 2;
  rule.draft_tokens = static_cast<int>(json.find_int("draft_tokens", 0, kMostDraftTokens).value_or(0));
  if (rule.draft_tokens > 0) {
    rule.acceptance = json.at("acceptance").as_number(0, 1);
  } else if (json.has("acceptance")) {
    throw InputError(json.at("acceptance").where(), "is of guesses, and none are made", "write draft_tokens");
  }
  const auto format = [&](std::string_view key, std::string& into) {
    const auto name = json.find_string(key);
    if (!name) return;
    if (!parse_dtype(*name)) throw InputError(json.at(key).where(), "\"" + *name + "\" is no format");
    into = *name;
  };
  format("expert_kernels", rule.expert_kernels);
  format("kv_dtype", rule.kv_dtype);
  if (const auto name = json.find_string("all_reduce")) {
    rule.all_reduce = framework_named(*name, json.at("all_reduce").where());
  }
  rule.superseded = json.find_bool("superseded").value_or(false);
  rule.defective = json.find_bool("defective").value_or(false);
  return rule;
}

PublishedRuns PublishedRuns::parse(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const JsonView root(json, where);
  root.refuse_unknown_keys({"schema_version", "name", "source", "models", "lengths", "range", "waves", "settings"});
  static_cast<void>(root.at("schema_version").as_int(kSchemaVersion, kSchemaVersion));
  static_cast<void>(root.at("source").as_string());
  static_cast<void>(root.at("name").as_string());
  PublishedRuns runs;
  runs.where_ = where;
  static_cast<void>(root.at("models"));  // without them it would have run everything
  static_cast<void>(root.at("lengths"));
  runs.models_ = strings_of(root, "models");
  runs.lengths_ = lengths_of(root);
  const JsonView drawn = root.at("range");
  drawn.refuse_unknown_keys({"least", "most", "source"});
  const double least = drawn.at("least").as_number(0, 10);
  runs.usual_.length_ratio = (least + drawn.at("most").as_number(least, 10)) / 2;
  const JsonView waves = root.at("waves");
  waves.refuse_unknown_keys({"value", "source"});
  runs.usual_.waves = waves.at("value").as_number(1, 1e9);
  const JsonView rules = root.at("settings");
  if (!rules.is_array()) throw InputError(rules.where(), "is no list of rules");
  if (rules.size() > kMostRules) throw InputError(rules.where(), "holds too many rules");
  for (std::size_t i = 0; i < rules.size(); ++i) runs.rules_.push_back(parse_rule(rules.at(i)));
  return runs;
}

std::vector<PublishedRuns> PublishedRuns::read_all(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".json") paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  std::vector<PublishedRuns> all;
  for (const std::string& path : paths) all.push_back(parse(read_text_file(path), path));
  return all;
}

bool PublishedRuns::ran(const ServingRow& row) const { return begins(models_, row.model) && among(lengths_, row); }

RunSettings PublishedRuns::settings_of(const ServingRow& row) const {
  RunSettings settings = usual_;
  for (const Rule& rule : rules_) {
    if (!rule.holds(row)) continue;
    settings.wait_steps = std::max(settings.wait_steps, rule.wait_steps);
    if (rule.draft_tokens > 0) {
      settings.draft_tokens = rule.draft_tokens;
      settings.acceptance = rule.acceptance;
    }
    if (!rule.expert_kernels.empty()) settings.expert_dtype = rule.expert_kernels;
    if (!rule.kv_dtype.empty()) settings.kv_dtype = rule.kv_dtype;
    if (!rule.all_reduce.empty()) settings.all_reduce = rule.all_reduce;
    settings.superseded = settings.superseded || rule.superseded;
    settings.defective = settings.defective || rule.defective;
  }
  return settings;
}

RunSettings settings_of(const std::vector<PublishedRuns>& known, const ServingRow& row) {
  const PublishedRuns* found = nullptr;
  for (const PublishedRuns& runs : known) {
    if (!runs.ran(row)) continue;
    if (found != nullptr) {
      throw InputError(runs.where(), "says that it ran " + row.model + ", as does " + found->where(),
                       "narrow models or lengths of one of them");
    }
    found = &runs;
  }
  return found == nullptr ? RunSettings() : found->settings_of(row);
}

}  // namespace moecast
