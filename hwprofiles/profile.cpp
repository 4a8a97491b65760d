#include "hwprofiles/profile.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"

namespace moecast {
namespace {

constexpr std::size_t kLongestPath = 4096;

constexpr std::array<std::string_view, 7> kUnits{"B", "B/s", "FLOP/s", "s", "Hz", "W", "1"};
constexpr std::array<Origin, 4> kStoredOrigins{Origin::measured, Origin::datasheet, Origin::fitted, Origin::assumed};
constexpr std::array<RowBucket, 3> kRowBuckets{RowBucket::exact, RowBucket::multiple4, RowBucket::tile16};
constexpr std::array<WeightPacking, 5> kPackings{WeightPacking::ahead, WeightPacking::none, WeightPacking::every_call,
                                                 WeightPacking::unless_small, WeightPacking::unless_one_row};

template <class Range>
std::string listed(const Range& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

Origin parse_origin(const JsonView& view) {
  const std::string text = view.as_string();
  for (const Origin origin : kStoredOrigins) {
    if (to_string(origin) == text) return origin;
  }
  throw InputError(view.where(), "\"" + text + "\" is not an origin of a stored number",
                   "write measured, datasheet, fitted or assumed");
}

/// The rule named at `key`; the first one when it is absent.
template <class Rule, std::size_t kCount>
Rule parse_rule(const JsonView& view, std::string_view key, const std::array<Rule, kCount>& rules) {
  const auto text = view.find_string(key);
  if (!text) return rules.front();
  std::string names;
  for (const Rule rule : rules) {
    if (to_string(rule) == *text) return rule;
    names += (names.empty() ? "" : ", ") + std::string(to_string(rule));
  }
  throw InputError(view.at(key).where(), "\"" + *text + "\" is not a rule", "one of: " + names);
}

ProfileBackend parse_backend(const JsonView& view) {
  view.refuse_unknown_keys({"name", "dtype", "library", "implementation", "row_bucket", "packing"});
  ProfileBackend backend;
  backend.name = view.at("name").as_string();
  const auto dtype = parse_dtype(view.at("dtype").as_string());
  if (!dtype) throw InputError(view.at("dtype").where(), "is not a known dtype", "fp32, bf16, fp8, ...");
  backend.dtype = *dtype;
  backend.library = view.find_string("library").value_or("");
  backend.implementation = view.find_string("implementation").value_or("");
  backend.row_bucket = parse_rule(view, "row_bucket", kRowBuckets);
  backend.packing = parse_rule(view, "packing", kPackings);
  return backend;
}

void check_version(const JsonView& root) {
  const auto version = root.at("schema_version").as_int(0, 1'000'000);
  if (version != kProfileSchemaVersion) {
    throw InputError(root.at("schema_version").where(),
                     "is " + std::to_string(version) + ", this program reads " + std::to_string(kProfileSchemaVersion),
                     "profile the machine again, or use the program that wrote the profile");
  }
}

Json quantity_json(const HardwareQuantity& quantity) {
  Json json;
  json["value"] = quantity.value;
  json["unit"] = quantity.unit;
  if (quantity.low) json["low"] = *quantity.low;
  if (quantity.high) json["high"] = *quantity.high;
  json["origin"] = to_string(quantity.origin);
  json["source"] = quantity.source;
  return json;
}

}  // namespace

HardwareQuantity parse_quantity(const JsonView& view) {
  view.refuse_unknown_keys({"value", "unit", "low", "high", "origin", "source"});
  HardwareQuantity quantity;
  quantity.value = view.at("value").as_number();
  quantity.unit = view.at("unit").as_string();
  if (std::find(kUnits.begin(), kUnits.end(), quantity.unit) == kUnits.end()) {
    throw InputError(view.at("unit").where(), "\"" + quantity.unit + "\" is not a unit of a stored number",
                     "SI base units only: " + listed(kUnits));
  }
  quantity.low = view.find_number("low");
  quantity.high = view.find_number("high");
  if ((quantity.low && *quantity.low > quantity.value) || (quantity.high && *quantity.high < quantity.value)) {
    throw InputError(view.where(), "the value lies outside its own interval", "low <= value <= high");
  }
  quantity.origin = parse_origin(view.at("origin"));
  quantity.source = view.at("source").as_string();
  return quantity;
}

std::string_view to_string(RowBucket rule) {
  switch (rule) {
    case RowBucket::exact: return "exact";
    case RowBucket::multiple4: return "multiple4";
    case RowBucket::tile16: return "tile16";
  }
  return "exact";
}

std::string_view to_string(WeightPacking rule) {
  switch (rule) {
    case WeightPacking::ahead: return "ahead";
    case WeightPacking::none: return "none";
    case WeightPacking::every_call: return "every_call";
    case WeightPacking::unless_one_row: return "unless_one_row";
    case WeightPacking::unless_small: return "unless_small";
  }
  return "ahead";
}

const HardwareQuantity* Profile::find(const std::string& quantity) const {
  const auto found = quantities.find(quantity);
  return found == quantities.end() ? nullptr : &found->second;
}

Profile parse_profile_text(std::string_view text, const std::string& where) {
  const Json document = parse_json(text, where);
  const JsonView root(document, where);
  check_version(root);
  root.refuse_unknown_keys(
      {"schema_version", "name", "device", "created", "quantities", "environment", "backends", "notes", "sister"});
  Profile profile;
  profile.name = root.at("name").as_string();
  profile.device = root.at("device").as_string();
  if (profile.device != "cpu" && profile.device != "gpu") {
    throw InputError(root.at("device").where(), "\"" + profile.device + "\" is not a kind of device", "cpu or gpu");
  }
  profile.created = root.find_string("created").value_or("");
  const JsonView quantities = root.at("quantities");
  for (const std::string& name : quantities.keys()) profile.quantities[name] = parse_quantity(quantities.at(name));
  if (root.has("environment")) {
    const JsonView environment = root.at("environment");
    for (const std::string& name : environment.keys()) {
      profile.environment[name] = environment.at(name).as_string();
    }
  }
  if (root.has("backends")) {
    const JsonView backends = root.at("backends");
    for (std::size_t i = 0; i < backends.size(); ++i) profile.backends.push_back(parse_backend(backends.at(i)));
  }
  if (root.has("notes")) {
    const JsonView notes = root.at("notes");
    for (std::size_t i = 0; i < notes.size(); ++i) profile.notes.push_back(notes.at(i).as_string());
  }
  profile.sister = root.find_string("sister").value_or("");
  if (profile.sister.size() > kLongestPath) {
    throw InputError(root.at("sister").where(), "is no name of a profile", "name a profile of the same generation");
  }
  return profile;
}

std::string profile_text(const Profile& profile) {
  Json json;
  json["schema_version"] = kProfileSchemaVersion;
  json["name"] = profile.name;
  json["device"] = profile.device;
  json["created"] = profile.created;
  json["quantities"] = Json::object();
  for (const auto& [name, quantity] : profile.quantities) json["quantities"][name] = quantity_json(quantity);
  json["environment"] = Json::object();
  for (const auto& [name, value] : profile.environment) json["environment"][name] = value;
  json["backends"] = Json::array();
  for (const ProfileBackend& backend : profile.backends) {
    json["backends"].push_back({{"name", backend.name},
                                {"dtype", to_string(backend.dtype)},
                                {"library", backend.library},
                                {"implementation", backend.implementation},
                                {"row_bucket", to_string(backend.row_bucket)},
                                {"packing", to_string(backend.packing)}});
  }
  json["notes"] = profile.notes;
  if (!profile.sister.empty()) json["sister"] = profile.sister;
  return dump_json(json);
}

Profile read_profile(const std::string& folder) {
  const std::string path = folder + "/profile.json";
  return parse_profile_text(read_text_file(path), path);
}

void write_profile(const std::string& folder, const Profile& profile) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw DeviceError(folder, "cannot be made: " + failed.message(), "choose a folder that is writable");
  write_file_atomically(folder + "/profile.json", profile_text(profile));
}

}  // namespace moecast
