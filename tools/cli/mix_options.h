#pragma once
#include <string>
#include <vector>

#include "models/plan/workload.h"

namespace moecast {

class Command;

struct InputValue;

/// What was typed about tokens that differ, as text.
struct MixFlags {
  std::string modality;
  std::string tasks;
  std::string private_experts;
  bool task_steps = false;
};

/// Adds --modality, --tasks, --private-experts and --task-steps.
void add_mix_options(const Command& command, MixFlags& flags);

/// Fills in the modalities and tasks of a workload. @throws UsageError on a bad list, shares that do not add up to 1,
/// and flags that mean nothing without --tasks.
void parse_mix(const MixFlags& flags, Workload& workload);

/// What was typed, for the answer's `inputs`.
void add_mix_inputs(const MixFlags& flags, const Workload& workload, std::vector<InputValue>& inputs);

}  // namespace moecast
