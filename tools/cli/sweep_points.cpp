#include "tools/cli/sweep_points.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/prediction_report.h"
#include "tools/cli/query_answers.h"

namespace moecast {
namespace {

constexpr std::size_t kMostPoints = 1'000'000'000;
constexpr std::size_t kMostParts = 100'000;
constexpr std::size_t kMostWarnings = 20;
constexpr std::size_t kInvalid = 3;  ///< after the values of Status

/// A flag that takes a list of words.
struct ListFlag {
  const char* flag;
  const char* column;
  std::string& (*text)(QueryOptions&);
  bool number = false;  ///< of numbers that are not whole
};

using Options = QueryOptions;

constexpr std::array kLists{
    ListFlag{"--model", "model", [](Options& o) -> std::string& { return o.model; }},
    ListFlag{"--hw", "hw", [](Options& o) -> std::string& { return o.hw; }},
    ListFlag{"--backend", "backend", [](Options& o) -> std::string& { return o.backend; }},
    ListFlag{"--load", "load", [](Options& o) -> std::string& { return o.load; }},
    ListFlag{"--dtype", "dtype", [](Options& o) -> std::string& { return o.dtype; }},
    ListFlag{"--kv-dtype", "kv_dtype", [](Options& o) -> std::string& { return o.kv_dtype; }},
    ListFlag{"--all-reduce", "all_reduce", [](Options& o) -> std::string& { return o.all_reduce; }},
    ListFlag{"--strategy", "strategy", [](Options& o) -> std::string& { return o.strategy; }},
    ListFlag{"--capacity-factor", "capacity_factor", [](Options& o) -> std::string& { return o.capacity_factor; },
             true},
    ListFlag{"--acceptance", "acceptance_ratio", [](Options& o) -> std::string& { return o.acceptance; }, true},
    ListFlag{"--seed", "seed", [](Options& o) -> std::string& { return o.seed; }, true},
    ListFlag{"--resident-bytes", "resident_bytes", [](Options& o) -> std::string& { return o.offload.resident_bytes; }},
    ListFlag{"--host-link", "host_link", [](Options& o) -> std::string& { return o.offload.host_link; }},
    ListFlag{"--overflow", "overflow", [](Options& o) -> std::string& { return o.overflow; }},
    ListFlag{"--activation", "activation", [](Options& o) -> std::string& { return o.activation; }},
    ListFlag{"--offload", "offload", [](Options& o) -> std::string& { return o.offload.policy; }},
    ListFlag{"--optimizer", "optimizer", [](Options& o) -> std::string& { return o.training.optimizer; }},
    ListFlag{"--recompute", "recompute", [](Options& o) -> std::string& { return o.training.recompute; }},
    ListFlag{"--phase", "phase", [](Options& o) -> std::string& { return o.phase; }}};

bool is_number(const std::string& text) {
  return std::isdigit(static_cast<unsigned char>(text.front())) != 0 || text.front() == '.';
}

/// Words of a list. A number belongs to the word before: "uniform,histogram:3,1" is two loads.
std::vector<std::string> words_of(const ListFlag& list, QueryOptions options) {
  const std::string& text = list.text(options);
  if (text.empty()) return {""};
  std::vector<std::string> words;
  for (std::string& part : split_list(text, list.flag)) {
    if (list.column == std::string_view("load") && !words.empty() && is_number(part)) {
      words.back() += "," + part;
    } else {
      words.push_back(std::move(part));
    }
  }
  return words;
}

/// The same keys with null for every value.
Json nulls_of(const Json& json) {
  Json nulls = Json::object();
  for (const auto& [key, value] : json.items()) nulls[key] = value.is_object() ? nulls_of(value) : Json();
  return nulls;
}

/// A word that was accepted as a number, or as the absence of one.
Json number_of(const std::string& word) {
  if (word == "none") return {};
  const double number = parse_number(word, "sweep");
  const bool whole = word.find_first_not_of("0123456789") == std::string::npos && number < 1e15;
  return whole ? Json(static_cast<std::int64_t>(number)) : Json(number);
}

/// A row is a line.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

}  // namespace

SweepPoints::SweepPoints(const QueryOptions& options, const DataFolders& folders)
    : unknown_(std::make_shared<const Json>(nulls_of(outcome_json(Prediction{})))) {
  std::vector<std::vector<std::string>> lists;
  std::size_t combinations = 1;
  for (const ListFlag& list : kLists) {
    lists.push_back(words_of(list, options));
    if (lists.back().size() > 1) {
      columns_.emplace_back(list.column);
      numbers_.push_back(list.number);
    }
    combinations *= lists.back().size();
    if (combinations > kMostParts) throw UsageError(list.flag, "makes too many combinations of lists", "sweep fewer");
  }
  lists_ = columns_.size();
  several_questions_ = lists.front().size() > 1 || lists.back().size() > 1;
  for (const std::string& name : lists[1]) {
    const HardwareChoice hardware = choose_hardware(name, folders);
    for (const std::string& backend : lists[2]) refuse_backend_typo(backend, hardware);
    machines_.push_back(std::make_unique<Machine>(Machine{name, hardware, load_predictor(hardware, folders)}));
  }
  std::map<std::string, std::shared_ptr<const Architecture>> models;
  for (std::size_t i = 0; i < combinations; ++i) {
    QueryOptions chosen = options;
    std::vector<std::string> words;
    std::size_t rest = i;
    for (std::size_t j = kLists.size(); j-- > 0;) {
      const std::string& word = lists[j][rest % lists[j].size()];
      rest /= lists[j].size();
      kLists[j].text(chosen) = word;
      if (lists[j].size() > 1) words.insert(words.begin(), word);
    }
    if (!models.contains(chosen.model)) {
      const auto& model = models[chosen.model] = asked_model(chosen, folders);
      if (model) notes_.insert(notes_.end(), model->notes.begin(), model->notes.end());
    }
    add_part(chosen, std::move(words), models.at(chosen.model));
  }
}

void SweepPoints::add_part(const QueryOptions& options, std::vector<std::string> words,
                           const std::shared_ptr<const Architecture>& model) {
  const auto machine = std::ranges::find_if(machines_, [&](const auto& known) { return known->name == options.hw; });
  QueryOptions asked = with_usual_load(options, (*machine)->hardware.gpu);
  // Flags for one phase or model among several mean nothing to the others.
  if (several_questions_) drop_idle_numbers(asked, asked.phase, model.get());
  QuerySet set(asked, model, (*machine)->hardware.threads, kMostPoints);
  for (const auto& [key, value] : set.varied(0)) {
    if (std::ranges::find(columns_, key) == columns_.end()) columns_.push_back(key);
  }
  const std::size_t first = size_;
  size_ += set.size();
  if (size_ > kMostPoints)
    throw UsageError("", fmt::format("makes more than {} combinations", kMostPoints), "sweep fewer");
  parts_.push_back({options, std::move(words), machine->get(), std::move(set), first});
}

Prediction SweepPoints::answer(const Part& part, std::size_t index) const {
  Query query = part.set.at(index);
  refuse_expert_degrees(query.architecture, query.deployment);
  fill_in_assumed(query, part.machine->hardware);
  return predict_query(*part.machine->predictor, query, part.options.model, false);
}

Json SweepPoints::blank_row() const {
  Json row = Json::object();
  for (const std::string& column : columns_) row[column] = nullptr;
  row.update(*unknown_);
  row["warnings"] = nullptr;
  return row;
}

Json SweepPoints::row(std::size_t index) const {
  const auto after = std::ranges::upper_bound(parts_, index, {}, &Part::first);
  const Part& part = *std::prev(after);
  Json row = blank_row();
  for (std::size_t i = 0; i < lists_; ++i) {
    row[columns_[i]] = numbers_[i] ? number_of(part.words[i]) : Json(one_line(part.words[i]));
  }
  for (const auto& [key, value] : part.set.varied(index - part.first)) row[key] = value;
  Json outcome;
  try {
    const Prediction prediction = answer(part, index - part.first);
    note(prediction);
    outcome = outcome_json(prediction);
    if (outcome["reason"].is_string()) outcome["reason"] = one_line(outcome["reason"].get<std::string>());
    if (!prediction.warnings.empty()) {
      outcome["warnings"] = one_line(fmt::format("{}", fmt::join(prediction.warnings, "; ")));
    }
  } catch (const UsageError& error) {
    note_invalid(error.what());
    outcome = *unknown_;
    outcome["reason"] = one_line(error.what());
  } catch (const InputError& error) {
    note_invalid(error.what());
    outcome = *unknown_;
    outcome["reason"] = one_line(error.what());
  }
  if (outcome["status"].is_null()) outcome["status"] = "invalid";
  row.update(outcome);
  return row;
}

std::vector<std::string> SweepPoints::text_columns() const {
  std::vector<std::string> text;
  for (std::size_t i = 0; i < lists_; ++i) {
    if (!numbers_[i]) text.push_back(columns_[i]);
  }
  text.insert(text.end(), {"status", "reason", "bottleneck", "origin", "warnings"});
  return text;
}

std::vector<std::string> SweepPoints::whole_columns() const {
  return {columns_.begin() + static_cast<std::ptrdiff_t>(lists_), columns_.end()};
}

void SweepPoints::note(const Prediction& prediction) const {
  counts_[static_cast<std::size_t>(prediction.status)].fetch_add(1, std::memory_order_relaxed);
  if (prediction.warnings.empty()) return;
  const std::lock_guard lock(mutex_);
  for (const std::string& warning : prediction.warnings) {
    if (warnings_.size() < kMostWarnings) warnings_.insert(warning);
  }
}

void SweepPoints::note_invalid(const std::string& reason) const {
  counts_[kInvalid].fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  if (invalid_reason_.empty()) invalid_reason_ = reason;
}

void SweepPoints::reset_counts() {
  for (auto& count : counts_) count.store(0);
}

std::vector<std::pair<std::string, std::size_t>> SweepPoints::counts() const {
  std::vector<std::pair<std::string, std::size_t>> found;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    const std::size_t count = counts_[i].load();
    if (count > 0) found.emplace_back(i == kInvalid ? "invalid" : status_name(static_cast<Status>(i)), count);
  }
  return found;
}

std::string SweepPoints::invalid_reason() const {
  const std::lock_guard lock(mutex_);
  return invalid_reason_;
}

std::vector<std::string> SweepPoints::warnings() const {
  const std::lock_guard lock(mutex_);
  return {warnings_.begin(), warnings_.end()};
}

}  // namespace moecast
