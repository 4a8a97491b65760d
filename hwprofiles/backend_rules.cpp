#include "hwprofiles/backend_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"

namespace moecast {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kMost = 1e12;

ColumnCondition parse_condition(const JsonView& view, std::size_t column) {
  ColumnCondition condition;
  condition.column = column;
  if (view.is_number()) {
    condition.from = condition.to = view.as_number(0, kMost);
    return condition;
  }
  view.refuse_unknown_keys({"from", "to", "multiple_of", "not_multiple_of"});
  condition.from = view.find_number("from", 0, kMost).value_or(-kInfinity);
  condition.to = view.find_number("to", 0, kMost).value_or(kInfinity);
  condition.multiple_of = view.find_number("multiple_of", 1, kMost).value_or(0);
  condition.not_multiple_of = view.find_number("not_multiple_of", 1, kMost).value_or(0);
  if (condition.from > condition.to) throw InputError(view.where(), "holds no number", "from is at most to");
  if (view.size() == 0) throw InputError(view.where(), "asks for nothing", "leave the column out");
  return condition;
}

std::vector<ColumnCondition> parse_case(const JsonView& view, const KernelLayout& layout) {
  std::vector<std::string_view> names;
  for (const TableColumn& column : layout.numbers) names.push_back(column.name);
  view.refuse_unknown_keys(names);
  std::vector<ColumnCondition> conditions;
  for (const std::string& name : view.keys()) {
    conditions.push_back(parse_condition(view.at(name), layout.column(name)));
  }
  if (conditions.empty()) throw InputError(view.where(), "asks for nothing", "leave \"when\" out: always");
  return conditions;
}

std::vector<std::string> parse_names(const JsonView& view) {
  std::vector<std::string> names;
  if (!view.is_array() || view.size() == 0) throw InputError(view.where(), "is no list of names", "[\"name\"]");
  for (std::size_t i = 0; i < view.size(); ++i) names.push_back(view.at(i).as_string());
  return names;
}

KernelRule parse_rule(const JsonView& view) {
  view.refuse_unknown_keys(
      {"operator", "formats", "when", "kernel", "fastest_of", "origin", "rows", "agree", "source"});
  KernelRule rule;
  rule.layout = view.at("operator").as_string();
  const KernelLayout* layout = find_kernel_layout(rule.layout);
  if (layout == nullptr) {
    throw InputError(view.at("operator").where(), "\"" + rule.layout + "\" is no kind of table",
                     "moe, gemm, context_attention, ...");
  }
  rule.formats = parse_names(view.at("formats"));
  if (view.has("when")) {
    const JsonView cases = view.at("when");
    if (!cases.is_array() || cases.size() == 0) throw InputError(cases.where(), "is no list of cases", "[{...}]");
    for (std::size_t i = 0; i < cases.size(); ++i) rule.when.push_back(parse_case(cases.at(i), *layout));
  }
  if (view.has("kernel") == view.has("fastest_of")) {
    throw InputError(view.where(), "names no kernel, or twice", "write either \"kernel\" or \"fastest_of\"");
  }
  rule.kernels = view.has("kernel") ? std::vector{view.at("kernel").as_string()} : parse_names(view.at("fastest_of"));
  const std::string origin = view.at("origin").as_string();
  if (origin != "measured" && origin != "assumed") {
    throw InputError(view.at("origin").where(), "\"" + origin + "\" is not known", "write \"measured\" or \"assumed\"");
  }
  rule.origin = origin == "measured" ? Origin::measured : Origin::assumed;
  rule.rows = view.at("rows").as_int(0);
  rule.agree = view.at("agree").as_int(0, rule.rows);
  if (rule.origin == Origin::measured && (rule.rows == 0 || rule.agree != rule.rows)) {
    throw InputError(view.at("origin").where(), "is measured, but not every row agrees",
                     "write \"assumed\", or conditions that explain the rows");
  }
  rule.source = view.at("source").as_string();
  return rule;
}

Json condition_json(const ColumnCondition& condition) {
  const bool divides = condition.multiple_of > 0 || condition.not_multiple_of > 0;
  if (condition.from == condition.to && !divides) return condition.from;
  Json json = Json::object();
  if (std::isfinite(condition.from)) json["from"] = condition.from;
  if (std::isfinite(condition.to)) json["to"] = condition.to;
  if (condition.multiple_of > 0) json["multiple_of"] = condition.multiple_of;
  if (condition.not_multiple_of > 0) json["not_multiple_of"] = condition.not_multiple_of;
  return json;
}

Json rule_json(const KernelRule& rule) {
  const KernelLayout& layout = *find_kernel_layout(rule.layout);
  Json json{{"operator", rule.layout}, {"formats", rule.formats}};
  for (const auto& conditions : rule.when) {
    Json all = Json::object();
    for (const ColumnCondition& c : conditions) all[std::string(layout.numbers[c.column].name)] = condition_json(c);
    json["when"].push_back(std::move(all));
  }
  if (rule.kernels.size() == 1) {
    json["kernel"] = rule.kernels.front();
  } else {
    json["fastest_of"] = rule.kernels;
  }
  json["origin"] = to_string(rule.origin);
  json["rows"] = rule.rows;
  json["agree"] = rule.agree;
  json["source"] = rule.source;
  return json;
}

}  // namespace

TunedTiles parse_tuned_tiles(const JsonView& view) {
  view.refuse_unknown_keys({"operator", "kernel", "formats", "small_default", "pairs", "source"});
  TunedTiles tuned;
  tuned.layout = view.at("operator").as_string();
  if (tuned.layout != "moe") {
    throw InputError(view.at("operator").where(), "\"" + tuned.layout + "\" has no tiles by experts", "write \"moe\"");
  }
  tuned.kernel = view.at("kernel").as_string();
  tuned.formats = parse_names(view.at("formats"));
  tuned.small_default = view.at("small_default").as_bool();
  const JsonView pairs = view.at("pairs");
  if (!pairs.is_array()) throw InputError(pairs.where(), "is no list of [experts, width]");
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const JsonView pair = pairs.at(i);
    if (!pair.is_array() || pair.size() != 2) throw InputError(pair.where(), "is not [experts, width]");
    tuned.pairs.push_back({pair.at(std::size_t{0}).as_int(1, 1 << 20), pair.at(std::size_t{1}).as_int(1, 1 << 24)});
    if (i > 0 && tuned.pairs[i] <= tuned.pairs[i - 1]) throw InputError(pair.where(), "is out of order", "sort them");
  }
  tuned.source = view.at("source").as_string();
  return tuned;
}

Json tuned_tiles_json(const TunedTiles& tuned) {
  return {{"operator", tuned.layout}, {"kernel", tuned.kernel},
          {"formats", tuned.formats}, {"small_default", tuned.small_default},
          {"pairs", tuned.pairs},     {"source", tuned.source}};
}

bool TunedTiles::contains(double experts, double width) const {
  const std::array<std::int64_t, 2> pair{std::llround(experts), std::llround(width)};
  return std::ranges::binary_search(pairs, pair);
}

bool ColumnCondition::holds(std::span<const double> row) const {
  const double value = row[column];
  if (!(from <= value && value <= to)) return false;
  if (multiple_of > 0 && std::fmod(value, multiple_of) != 0) return false;
  return not_multiple_of == 0 || std::fmod(value, not_multiple_of) != 0;
}

std::string ColumnCondition::text(const KernelLayout& layout) const {
  std::string text(layout.numbers[column].name);
  if (from == to) {
    text += fmt::format(" {:g}", from);
  } else {
    if (std::isfinite(from)) text += fmt::format(" from {:g}", from);
    if (std::isfinite(to)) text += fmt::format(" to {:g}", to);
  }
  if (multiple_of > 0) text += fmt::format(" a multiple of {:g}", multiple_of);
  if (not_multiple_of > 0) text += fmt::format(" no multiple of {:g}", not_multiple_of);
  return text;
}

bool KernelRule::names(std::string_view kernel) const { return std::ranges::find(kernels, kernel) != kernels.end(); }

bool KernelRule::holds(std::span<const double> row) const {
  return when.empty() || std::ranges::any_of(when, [&](const std::vector<ColumnCondition>& conditions) {
           return std::ranges::all_of(conditions, [&](const ColumnCondition& c) { return c.holds(row); });
         });
}

std::string KernelRule::when_text() const {
  const KernelLayout& columns = *find_kernel_layout(layout);
  std::vector<std::string> cases;
  for (const auto& conditions : when) {
    std::vector<std::string> all;
    for (const ColumnCondition& condition : conditions) all.push_back(condition.text(columns));
    cases.push_back(fmt::format("{}", fmt::join(all, ", ")));
  }
  return cases.empty() ? "every other row" : fmt::format("{}", fmt::join(cases, "; or "));
}

const KernelRule* BackendRules::find(std::string_view layout, std::string_view format,
                                     std::span<const double> row) const {
  for (const KernelRule& rule : rules) {
    if (rule.layout == layout && std::ranges::find(rule.formats, format) != rule.formats.end() && rule.holds(row)) {
      return &rule;
    }
  }
  return nullptr;
}

std::vector<BackendRules::Threshold> BackendRules::thresholds(std::string_view layout, std::string_view format) const {
  std::vector<Threshold> found;
  for (const KernelRule& rule : rules) {
    if (rule.layout != layout || std::ranges::find(rule.formats, format) == rule.formats.end()) continue;
    const KernelLayout& columns = *find_kernel_layout(layout);
    for (const auto& conditions : rule.when) {
      for (const ColumnCondition& condition : conditions) {
        if (!columns.numbers[condition.column].position) continue;
        if (std::isfinite(condition.from)) found.push_back({condition.column, condition.from});
        if (std::isfinite(condition.to)) found.push_back({condition.column, condition.to + 1});  // positions count
      }
    }
  }
  std::ranges::sort(found, {}, &Threshold::value);
  return found;
}

const KernelRule* find_kernel_rule(const std::vector<BackendRules>& backends, std::string_view framework,
                                   std::string_view layout, std::string_view format, std::span<const double> row) {
  const auto found = std::ranges::find(backends, framework, &BackendRules::framework);
  return found == backends.end() ? nullptr : found->find(layout, format, row);
}

BackendRules parse_backend_rules_text(std::string_view text, const std::string& where) {
  const Json document = parse_json(text, where);
  const JsonView root(document, where);
  root.refuse_unknown_keys({"schema_version", "framework", "rules", "tuned"});
  static_cast<void>(root.at("schema_version").as_int(kBackendRulesVersion, kBackendRulesVersion));
  BackendRules backend;
  backend.framework = root.at("framework").as_string();
  const JsonView rules = root.at("rules");
  if (!rules.is_array()) throw InputError(rules.where(), "is no list of rules");
  for (std::size_t i = 0; i < rules.size(); ++i) backend.rules.push_back(parse_rule(rules.at(i)));
  if (root.has("tuned")) {
    const JsonView tuned = root.at("tuned");
    if (!tuned.is_array()) throw InputError(tuned.where(), "is no list of tuned tiles");
    for (std::size_t i = 0; i < tuned.size(); ++i) backend.tuned.push_back(parse_tuned_tiles(tuned.at(i)));
  }
  return backend;
}

std::string backend_rules_text(const BackendRules& backend) {
  Json json{{"schema_version", kBackendRulesVersion}, {"framework", backend.framework}, {"rules", Json::array()}};
  for (const KernelRule& rule : backend.rules) json["rules"].push_back(rule_json(rule));
  for (const TunedTiles& tuned : backend.tuned) json["tuned"].push_back(tuned_tiles_json(tuned));
  return dump_json(json);
}

std::vector<BackendRules> read_backend_rules(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/backends", none)) {
    if (entry.path().extension() == ".json") paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  std::vector<BackendRules> all;
  for (const std::string& path : paths) {
    all.push_back(parse_backend_rules_text(read_text_file(path), path));
    if (std::filesystem::path(path).stem() != all.back().framework) {
      throw InputError(path + ": /framework", "is \"" + all.back().framework + "\", not what the file is named after",
                       "rename the file, or mend the name");
    }
  }
  return all;
}

}  // namespace moecast
