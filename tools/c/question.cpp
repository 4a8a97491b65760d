#include "tools/c/question.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/core/json.h"
#include "tools/cli/prediction_report.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_numbers.h"

namespace moecast {
namespace {

/// "--prefill-batch" as a field: "prefill_batch".
std::string field_of(std::string_view flag) {
  std::string name(flag.substr(2));
  std::ranges::replace(name, '-', '_');
  return name;
}

/// Numeric flags that a question may set; threads are the machine's.
bool asked(const NumberFlag& flag) { return std::string_view(flag.name) != "--threads"; }

struct TextField {
  const char* name;
  std::string QueryOptions::* value;
};

constexpr TextField kTexts[] = {{"phase", &QueryOptions::phase},           {"load", &QueryOptions::load},
                                {"kv_dtype", &QueryOptions::kv_dtype},     {"all_reduce", &QueryOptions::all_reduce},
                                {"activation", &QueryOptions::activation}, {"overflow", &QueryOptions::overflow}};

void refuse_unknown_fields(const JsonView& question) {
  std::vector<std::string> names{"architecture", "rows", "seed",  "acceptance", "capacity_factor",
                                 "eager",        "pad",  "gated", "without"};
  for (const NumberFlag& flag : number_flags()) {
    if (asked(flag)) names.push_back(field_of(flag.name));
  }
  for (const TextField& text : kTexts) names.emplace_back(text.name);
  question.refuse_unknown_keys({names.begin(), names.end()});
}

/// The elements of a list, or a text as it is, separated by commas.
std::string joined(const JsonView& list) {
  if (list.is_string()) return list.as_string();
  std::vector<std::string> words;
  for (std::size_t i = 0; i < list.size(); ++i) words.push_back(list.at(i).as_string());
  if (words.empty() && !list.is_array()) return list.as_string();  // which says what it is
  return fmt::format("{}", fmt::join(words, ","));
}

std::string joined_rows(const JsonView& list) {
  std::vector<std::int64_t> rows;
  if (!list.is_array()) static_cast<void>(list.at(0));  // which says what it is
  for (std::size_t i = 0; i < list.size(); ++i) rows.push_back(list.at(i).as_int(0, kMaxSize));
  return fmt::format("{}", fmt::join(rows, ","));
}

QueryOptions options_of(const JsonView& question, QueryOptions options) {
  for (const NumberFlag& flag : number_flags()) {
    const std::string field = field_of(flag.name);
    if (!asked(flag)) continue;
    if (const auto value = question.find_int(field, flag.low, flag.high)) {
      options.numbers[flag.name] = std::to_string(*value);
    }
  }
  for (const TextField& text : kTexts) options.*text.value = question.find_string(text.name).value_or("");
  if (question.has("rows")) options.rows = joined_rows(question.at("rows"));
  if (question.has("without")) options.without = joined(question.at("without"));
  if (const auto seed = question.find_int("seed", 0)) options.seed = std::to_string(*seed);
  if (const auto rate = question.find_number("acceptance", 0, 1)) options.acceptance = fmt::format("{}", *rate);
  if (const auto factor = question.find_number("capacity_factor")) {
    options.capacity_factor = fmt::format("{}", *factor);
  }
  options.eager = question.find_bool("eager").value_or(false);
  options.pad = question.find_bool("pad").value_or(false);
  if (const auto gated = question.find_bool("gated")) (*gated ? options.gated : options.no_gated) = true;
  return options;
}

/// An architecture that stands in the question itself; its name goes where a flag would name it.
std::shared_ptr<const Architecture> described_model(const JsonView& description, QueryOptions& options) {
  if (!asks_nothing(options)) {
    throw UsageError("architecture", "and the fields of a single layer exclude each other", "give one of the two");
  }
  const std::string where = "architecture";
  auto model = std::make_shared<const Architecture>(load_architecture_text(dump_json(description.raw()), where, where));
  options.model = model->name;
  return model;
}

std::shared_ptr<const Architecture> model_of(const JsonView& question, QueryOptions& options,
                                             const DataFolders& folders) {
  if (question.has("architecture")) {
    const JsonView architecture = question.at("architecture");
    if (architecture.is_object()) return described_model(architecture, options);
    options.model = architecture.as_string();
  }
  if (asks_nothing(options)) {
    throw UsageError(
        "architecture", "is missing",
        R"(a name of moecast list models, a file or an object; or a layer: {"hidden": 1024, "width": 2048, )"
        R"("experts": 8, "top_k": 2, "tokens": 64})");
  }
  return asked_model(options, folders);
}

}  // namespace

std::string answer_question(const AskedMachine& machine, std::string_view question) {
  const Json document = parse_json(question, "question");
  const JsonView view(document, "question");
  refuse_unknown_fields(view);
  QueryOptions options = options_of(view, machine.options);
  const HardwareChoice& hardware = machine.setting.hardware;
  std::shared_ptr<const Architecture> model = model_of(view, options, machine.setting.folders);
  const QuerySet set(with_usual_load(options, hardware.gpu), std::move(model), hardware.threads, 1);
  Query query = set.at(0);
  complete_query(query, options, hardware);
  Prediction prediction = predict_query(*machine.predictor, query, options.model);
  return dump_json(prediction_json({std::move(query), std::move(prediction)}));
}

}  // namespace moecast
