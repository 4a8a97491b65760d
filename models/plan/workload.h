#pragma once
#include <cstdint>
#include <optional>
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

std::string_view to_string(Phase phase);
std::optional<Phase> find_phase(std::string_view text);

/// What one step has to do, on all data-parallel ranks together.
struct Workload {
  Phase phase = Phase::decode;
  std::int64_t batch = 1;    ///< sequences in the step
  std::int64_t context = 0;  ///< tokens already in the KV cache of each sequence (decode, mixed)
  std::int64_t prompt = 1;   ///< new tokens of a sequence in prefill, encode and train
  /// Encoder-decoder models: tokens of each encoded sequence, which cross attention sees. Prefill encodes them first.
  /// 0: as many as `prompt` in prefill and mixed steps, as `context` in decode.
  std::int64_t source = 0;
  std::int64_t prefill_batch = 0;             ///< mixed: sequences in prefill beside `batch` in decode
  ExpertLoad load;                            ///< popularity of experts
  std::vector<std::int64_t> rows_per_expert;  ///< exact histogram of a single MoE layer, overrides `load`
  std::int64_t chunks = 1;                    ///< rows of an expert computed in this many parts, one after another
  std::int64_t copies = 1;  ///< layers of equal shape that are cycled through between two uses of a weight
  TrainingPlan training;    ///< train only: what is trained, and how
};

}  // namespace moecast
