#pragma once
#include <memory>
#include <string>
#include <vector>

#include "models/core/json.h"
#include "tools/cli/prediction_report.h"

namespace moecast {

/// The document of a file that `--format json` of predict, explain or serve may have written: a JSON object with a
/// status. nullptr where it is anything else: no file, a model.
/// @throws InputError on several answers in one file.
std::shared_ptr<const Json> find_saved_answer(const std::string& path);

/// True if it is of `serve`.
bool is_service(const Json& document);

/// What `predict` answered: its outcome, operators, inputs and warnings.
/// @param where  the file, for errors. @throws InputError on what no answer says.
Answer read_answer(const Json& document, const std::string& where);

/// What an answer was made with. @throws InputError
std::vector<InputValue> read_inputs(const JsonView& document);

}  // namespace moecast
