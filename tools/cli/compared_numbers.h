#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "models/core/json.h"
#include "tools/cli/output.h"

namespace moecast {

/// A number for people, in its unit.
using ShowNumber = std::function<std::string(double)>;

std::string show_seconds(double value);
std::string show_bytes(double value);
std::string show_ratio(double value);

/// A number that two answers A and B give; nullopt = unknown.
struct ComparedNumber {
  const char* name;   ///< key in JSON and CSV, with its unit
  const char* title;  ///< for people
  std::optional<double> a, b;
  ShowNumber show;
};

/// b / a; nullopt where one is unknown or a is zero.
std::optional<double> ratio_of(const std::optional<double>& a, const std::optional<double>& b);

/// Title, A, B, B - A, B / A.
std::vector<std::string> comparison_cells(const std::string& title, const std::optional<double>& a,
                                          const std::optional<double>& b, const ShowNumber& show);

/// `kind`, `name`, `a`, `b`, `difference`, `ratio`; unknown is null.
Json comparison_record(const char* kind, const std::string& name, const std::optional<double>& a,
                       const std::optional<double>& b);

/// Input -> its value in A and in B, of those that differ. @param a, b  `inputs` of the two answers.
Json differing_inputs(const Json& a, const Json& b);
Table input_difference_table(const Json& differing);

}  // namespace moecast
