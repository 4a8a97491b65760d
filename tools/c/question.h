#pragma once
#include <string>
#include <string_view>

#include "tools/c/machine.h"

namespace moecast {

/// Answers a question in JSON: fields named as the flags of `predict`, with "_" for "-", and `architecture`, which may
/// be an object. @return the JSON of `moecast predict --format json`.
/// @throws InputError naming the field, UsageError where fields contradict each other.
std::string answer_question(const AskedMachine& machine, std::string_view question);

}  // namespace moecast
