#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "sim/predictor.h"
#include "tools/cli/query_options.h"
#include "tools/cli/setting.h"

namespace moecast {

/// A machine that is asked about, and what every question to it has in common. Immutable: threads may share it.
struct AskedMachine {
  QueryOptions options;  ///< nothing but how the machine is used
  Setting setting;
  std::unique_ptr<Predictor> predictor;
};

/// How a machine is used; empty and 0 stand for the defaults.
struct MachineUse {
  std::string backend;
  std::string dtype;
  std::string strategy;
  std::string data;
  std::int64_t threads = 0;
};

/// @throws UsageError, InputError as the flags of `predict` do.
AskedMachine open_machine(const std::string& hw, const MachineUse& use);

}  // namespace moecast
