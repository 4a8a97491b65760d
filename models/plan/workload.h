#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/plan/training.h"
#include "models/routing/load.h"

namespace moecast {

/// train: forward, backward and optimiser over `prompt` tokens of each sequence.
enum class Phase { prefill, decode, mixed, encode, train };

struct Workload;

/// Encoder tokens of each sequence, the default filled in; at least 1.
std::int64_t source_tokens(const Workload& workload);

/// Tokens of each prompt that are in the KV cache already: a prefix that was cached, or earlier chunks.
std::int64_t prefix_tokens(const Workload& workload);

/// Tokens of the longest sequence when the step is done.
std::int64_t longest_sequence(const Workload& workload);

std::string_view to_string(Phase phase);
std::optional<Phase> find_phase(std::string_view text);

/// Part of the tokens that are text, image, ...: experts of a modality see these only.
struct ModalityShare {
  std::string modality;  ///< as ExpertGroup::modality has it
  double share = 1;      ///< of all tokens; shares of a workload add up to 1
  friend bool operator==(const ModalityShare&, const ModalityShare&) = default;
};

/// Part of the tokens that belong to a task: translation, classification, ...
struct TaskShare {
  std::string task;
  double share = 1;  ///< of all tokens; shares of a workload add up to 1
  friend bool operator==(const TaskShare&, const TaskShare&) = default;
};

/// Tasks that share a model. The last experts of a MoE layer are private: `private_experts` of each task, in the order
/// of the tasks; the others are shared by all.
struct TaskMix {
  std::vector<TaskShare> tasks;  ///< empty: there is but one
  std::int64_t private_experts = 0;
  bool one_a_step = false;  ///< a step is of one task, drawn by its share; else every step holds all
  friend bool operator==(const TaskMix&, const TaskMix&) = default;
};

/// What one step has to do, on all data-parallel ranks together.
struct Workload {
  Phase phase = Phase::decode;
  std::int64_t batch = 1;  ///< sequences in the step
  /// Tokens already in the KV cache of each sequence: those that decode; in prefill the prefix of each prompt.
  std::int64_t context = 0;
  std::int64_t prompt = 1;  ///< new tokens of a sequence in prefill, encode and train
  /// Encoder-decoder models: tokens of each encoded sequence, which cross attention sees. Prefill encodes them first.
  /// 0: as many as `prompt` in prefill and mixed steps, as `context` in decode.
  std::int64_t source = 0;
  std::int64_t prefill_batch = 0;             ///< mixed: sequences in prefill beside `batch` in decode
  std::int64_t prefix = 0;                    ///< mixed: tokens already in the KV cache of each sequence in prefill
  ExpertLoad load;                            ///< popularity of experts
  std::vector<std::int64_t> rows_per_expert;  ///< exact histogram of a single MoE layer, overrides `load`
  std::vector<ModalityShare> modalities;      ///< empty: all tokens are of the modality of the first experts
  TaskMix tasks;
  std::int64_t chunks = 1;  ///< rows of an expert computed in this many parts, one after another
  std::int64_t copies = 1;  ///< layers of equal shape that are cycled through between two uses of a weight
  TrainingPlan training;    ///< train only: what is trained, and how
  /// With Deployment::draft_tokens: how often a guess is right where those before it were, 0 to 1.
  std::optional<double> acceptance;
};

}  // namespace moecast
