#include "tools/c/machine.h"

#include "models/core/error.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_numbers.h"

namespace moecast {

AskedMachine open_machine(const std::string& hw, const MachineUse& use) {
  AskedMachine machine;
  for (const NumberFlag& flag : number_flags()) machine.options.numbers[flag.name].clear();
  machine.options.hw = hw;
  machine.options.data = use.data;
  machine.options.backend = use.backend;
  machine.options.dtype = use.dtype;
  machine.options.strategy = use.strategy;
  if (use.threads != 0) machine.options.numbers["--threads"] = std::to_string(use.threads);
  machine.setting = make_setting(find_data_folders(use.data), hw, use.backend, use.dtype, use.threads, use.strategy);
  refuse_cpu_flags(machine.options, machine.setting.hardware);
  machine.predictor = load_predictor(machine.setting.hardware, machine.setting.folders);
  return machine;
}

}  // namespace moecast
