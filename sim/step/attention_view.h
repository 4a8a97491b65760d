#pragma once
#include <cstdint>
#include <functional>

#include "sim/cost/kernel/ready_kernel.h"
#include "sim/step/step_operators.h"

namespace moecast {

/// Which keys a query sees: earlier ones and its own; all of its sequence (encoders); all encoded ones (cross).
enum class AttentionPairs { causal, all, encoded };

/// How an attention layer looks at a step.
struct AttentionView {
  bool prefill = false;  ///< its prompts, else its sequences that generate
  AttentionPairs pairs = AttentionPairs::causal;
  double source_layers = 1;  ///< layers of the encoder whose tokens are all seen
};

/// Length of a prompt without prefix under a causal mask that has as many pairs of query and key: tables hold no other.
double equal_causal_prompt(const StepShape& shape, const AttentionView& view);
/// Keys that a generated token sees.
double decode_keys(const StepShape& shape, const AttentionView& view);

/// Seconds of a calibrated attention kernel. @param row  of `layout`, without batch and lengths.
std::function<double(const StepShape&)> attention_seconds(const ReadyKernel& kernel, const KernelRowValues& row,
                                                          const KernelLayout& layout, const AttentionView& view);
/// @param cached  elements of a token in the cache. @param flops  a pair of query and key.
std::function<StepWork(const StepShape&)> attention_work(const AttentionView& view, std::int64_t cached, double flops);

}  // namespace moecast
