#include "tools/cli/query_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace moecast {

void blame_flag(const InputError& error, const std::string& model) {
  static const std::map<std::string, const char*> flags{{"tp", "--tp"},           {"ep", "--ep"},
                                                        {"pp", "--pp"},           {"moe_tp", "--moe-tp"},
                                                        {"phase", "--phase"},     {"copies", "--copies"},
                                                        {"load", "--load"},       {"rows_per_expert", "--rows"},
                                                        {"cluster", "--cluster"}, {"slow rank", "--slow-rank"},
                                                        {"backend", "--backend"}};
  if (const auto flag = flags.find(error.where()); flag != flags.end()) {
    throw UsageError(flag->second, error.problem(), error.hint());
  }
  if (error.where().starts_with("link ")) {
    throw UsageError("--slow-link", fmt::format("\"{}\" {}", error.where().substr(5), error.problem()), error.hint());
  }
  if (!error.where().empty()) throw error;
  throw InputError(model.empty() ? "layer" : model, error.problem(), error.hint());
}

void show_warnings(const std::vector<Answer>& answers) {
  std::set<std::string> shown;
  for (const Answer& answer : answers) {
    for (const std::string& text : answer.query.architecture.notes) {
      if (shown.insert(text).second) note("note: " + text);
    }
    for (const std::string& text : answer.prediction.warnings) {
      if (shown.insert(text).second) warn(text);
    }
  }
}

void assume_profiled_dtype(Query& query, const HardwareChoice& hardware) {
  const std::vector<DType>& known = hardware.dtypes;
  const auto has = [&](DType dtype) { return std::find(known.begin(), known.end(), dtype) != known.end(); };
  if (query.deployment.dtype || known.empty() || has(query.architecture.dtype)) return;
  query.deployment.dtype = known.front();
  for (InputValue& input : query.inputs) {
    if (input.name == "dtype") input.value = std::string(to_string(known.front()));
  }
}

}  // namespace moecast
