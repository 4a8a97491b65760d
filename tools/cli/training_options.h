#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/plan/training.h"

namespace moecast {

class Command;

struct InputValue;

/// What was typed about a training step, as text. Counts (--accumulation, --replicas, --zero) are numeric flags of the
/// query, so that they take ranges.
struct TrainingFlags {
  std::string optimizer;
  std::string freeze;
  std::string train_only;
  std::string recompute;
  std::string state_dtype;
  std::string gradient_dtype;
  std::string attack;
  bool no_master_weights = false;
  bool input_gradient = false;
};

struct TrainingCounts {
  std::int64_t accumulation = 1;
  std::int64_t replicas = 1;
  std::int64_t zero_stage = 0;
};

inline constexpr const char* kTrainingGroup = "Training (--phase train)";

void add_training_options(const Command& command, TrainingFlags& flags);

/// The first flag that was typed; empty = none.
std::string typed_training_flag(const TrainingFlags& flags);

/// @throws UsageError on unknown words (nearest suggested) and on flags that contradict each other.
TrainingPlan training_plan(const TrainingFlags& flags, const TrainingCounts& counts);

/// Everything that the plan says, defaults included. Counts are listed by the query.
void add_training_inputs(const TrainingPlan& plan, const TrainingFlags& flags, std::vector<InputValue>& inputs);

/// Trained parts as words: "router,experts"; "none".
std::string trained_parts(const TrainingPlan& plan);

}  // namespace moecast
