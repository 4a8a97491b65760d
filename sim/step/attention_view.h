#pragma once
#include <cstdint>
#include <functional>

#include "models/architecture/attention.h"
#include "sim/cost/kernel/ready_kernel.h"
#include "sim/step/step_operators.h"

namespace moecast {

/// How an attention layer looks at a step: its prompts, or its sequences that generate.
struct AttentionView {
  AttentionBlock block;  ///< its mask: causal or not, window, chunk, indexer, encoded keys of cross attention
  bool prefill = false;

  [[nodiscard]] bool crosses() const { return block.kind == AttentionKind::cross; }
};

/// Pairs of query and key that one sequence of the step makes.
double pairs_of(const StepShape& shape, const AttentionView& view);
/// Rows of the cache that one sequence of the step reads, its own new ones included.
double keys_read(const StepShape& shape, const AttentionView& view);

/// Prompts without prefix under the table's mask (causal, or causal in a window) with as many pairs as those of the
/// step. Chunks are prompts of their own.
struct EqualPrompts {
  double count = 0;
  double length = 0;
};
EqualPrompts equal_prompts(const StepShape& shape, const AttentionView& view);

/// Seconds of a calibrated attention kernel. @param row  of `layout`, without batch and lengths.
std::function<double(const StepShape&)> attention_seconds(const ReadyKernel& kernel, const KernelRowValues& row,
                                                          const KernelLayout& layout, const AttentionView& view);
/// What attention moves and computes, by elements of a token.
struct AttentionElements {
  std::int64_t cached = 0;  ///< in the cache
  double cache_bytes = 2;   ///< of each of those
  std::int64_t fresh = 0;   ///< of a new token: its query and its result
};
/// @param flops  a pair of query and key.
std::function<StepWork(const StepShape&)> attention_work(const AttentionView& view, const AttentionElements& elements,
                                                         double flops);

}  // namespace moecast
