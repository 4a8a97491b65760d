#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/plan/workload.h"
#include "tools/cli/setting.h"

namespace moecast::python {

/// The data folder of the package; empty = the source tree that this was built from. Threads may set and read it.
std::string data_folder();
void set_data_folder(const std::string& path);

/// @throws UsageError, InputError as the flags --hw, --backend, --dtype, --threads and --strategy do.
Setting make_setting(const std::string& hw, const std::string& backend, const std::string& dtype, std::int64_t threads,
                     const std::string& strategy);

/// @throws UsageError on an unknown phase or load, or a size below its least.
Workload make_workload(const std::string& phase, std::int64_t batch, std::int64_t context, std::int64_t prompt,
                       std::int64_t source, std::int64_t prefill_batch, std::int64_t prefix, std::int64_t copies,
                       const std::string& load, std::uint64_t seed, const std::vector<std::int64_t>& rows_per_expert);

}  // namespace moecast::python
