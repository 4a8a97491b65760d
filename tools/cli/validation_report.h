#pragma once
#include <string>

#include "models/core/json.h"
#include "tools/cli/output.h"
#include "tools/loop/validation.h"

namespace moecast {

/// The table of errors (median, mean, p90, within 10 %, tau, coverage, baselines, noise), verdicts and their reasons.
std::string validation_text(const ValidationReport& report, Format format);

/// `strata`, `noise_floor`, `passed`, `verdict`, `notes` of the JSON contract, and `cases` one by one.
Json validation_json(const ValidationReport& report);

/// One record a case: what it was, executed and predicted seconds.
std::vector<Json> case_records(const ValidationReport& report);

}  // namespace moecast
