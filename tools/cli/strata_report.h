#pragma once
#include <string>
#include <vector>

#include "models/core/json.h"
#include "tools/cli/output.h"
#include "tools/loop/strata.h"

namespace moecast {

/// n, median, mean, p90, within 10 %, tau, coverage, bias and both baselines of every stratum.
std::string strata_text(const std::vector<Stratum>& strata, Format format);
/// Errors of the JSON contract: of a stratum, of one of its bands.
Json summary_json(const ErrorSummary& summary);
/// The same with the name.
Json stratum_json(const Stratum& stratum);

}  // namespace moecast
