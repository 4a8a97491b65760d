#pragma once
#include <string>
#include <vector>

#include "models/core/json.h"
#include "tools/cli/output.h"
#include "tools/loop/strata.h"

namespace moecast {

/// n, median, mean, p90, within 10 %, tau, coverage, bias and both baselines of every stratum.
std::string strata_text(const std::vector<Stratum>& strata, Format format);
/// One stratum of the JSON contract.
Json stratum_json(const Stratum& stratum);

}  // namespace moecast
