#pragma once
#include <string>
#include <vector>

#include "profiler/reference/cases.h"

namespace moecast {

/// Configurations to be executed, from a file with one JSON object a line (gzip allowed):
///
///     {"name": "a17", "architecture": {own schema}, "phase": "decode", "batch": 4, "context": 512}
///
/// phase: decode (default) or prefill; batch >= 1 sequences (default 1); context >= 0 earlier tokens of each (decode);
/// prompt >= 1 new tokens of each (prefill); copies >= 1 of equal layers; zipf >= 0: skew of the routing (default 0).
/// `stratum` names the group that its error is reported in ("configurations").
/// @return every line for every combination, in file order; Architecture::name is the line's name, or its number.
/// @throws InputError with the line on a broken, unknown or too large value, UsageError on what the reference runtime
/// does not execute.
std::vector<ValidationCase> read_configurations(const std::string& path,
                                                const std::vector<KernelSetting>& combinations);

}  // namespace moecast
