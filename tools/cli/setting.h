#pragma once
#include <cstdint>
#include <string>

#include "models/plan/deployment.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/hardware_choice.h"

namespace moecast {

/// What a machine's predictions are made with, defaults filled in.
struct Setting {
  HardwareChoice hardware;
  DataFolders folders;
  Deployment deployment;
};

/// @param threads  0 = all that were profiled.
/// @throws UsageError, InputError as the flags --hw, --backend, --dtype, --threads and --strategy do.
Setting make_setting(const DataFolders& folders, const std::string& hw, const std::string& backend,
                     const std::string& dtype, std::int64_t threads, const std::string& strategy);

/// A size of a step. @param name  of it in errors. @throws UsageError outside of `low` to kMaxSize.
void require_size(std::int64_t value, std::int64_t low, const char* name);

}  // namespace moecast
