#pragma once
#include <optional>
#include <string>
#include <vector>

#include "tools/cli/event_options.h"
#include "tools/cli/prediction_report.h"

namespace moecast {

/// What --hw means where GPUs are allowed: their kernels are calibrated, so that their MoE layers can be simulated.
struct EventHardware {
  std::string folder;
  bool gpu = false;
  int threads = 1;
};
EventHardware event_hardware(const QueryOptions& options, const DataFolders& folders);

/// Answers of the event engine: whole steps of CPUs, MoE layers and training steps of GPUs. Draws a progress bar on a
/// terminal.
/// @return nullopt when Ctrl-C was pressed.
std::optional<std::vector<Answer>> event_answers(const QueryOptions& options, const EventFlags& flags);

}  // namespace moecast
