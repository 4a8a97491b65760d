#include "sim/step/attention_view.h"

#include <algorithm>
#include <cmath>

#include "models/architecture/accounting.h"
#include "models/core/count.h"
#include "sim/step/collective_cost.h"

namespace moecast {
namespace {

struct SequenceTokens {
  double fresh = 1;
  double context = 0;  ///< entries before them
};

/// Of one sequence.
SequenceTokens sequence_tokens(const StepShape& shape, const AttentionView& view) {
  if (view.prefill) return {std::max(1.0, shape.context / shape.prompts), shape.prefix / shape.prompts};
  return {shape.checked, std::max(0.0, shape.decode_kv - shape.checked)};
}

double sequences_of(const StepShape& shape, const AttentionView& view) {
  return view.prefill ? shape.prompts : shape.decodes;
}

double encoded_keys(const StepShape& shape, const AttentionView& view) {
  return shape.source * value(std::max<std::int64_t>(1, view.block.source_layers));
}

/// Sequences beyond their first chunk are anywhere in theirs: a mean length says nothing of the places.
bool chunks_are_mixed(const StepShape& shape, const AttentionView& view) {
  return !view.prefill && view.block.kind == AttentionKind::chunked && shape.decode_kv > value(view.block.window);
}

/// Keys that a table is asked for: it limits them to a window itself, of chunks it knows nothing.
double table_keys(const StepShape& shape, const AttentionView& view) {
  const bool all = view.block.kind != AttentionKind::chunked && !view.crosses();
  return all ? shape.decode_kv : pairs_of(shape, view) / shape.checked;
}

}  // namespace

double pairs_of(const StepShape& shape, const AttentionView& view) {
  const SequenceTokens tokens = sequence_tokens(shape, view);
  if (view.crosses()) return tokens.fresh * encoded_keys(shape, view);
  if (chunks_are_mixed(shape, view)) return shape.checked * (value(view.block.window) + 1) / 2;
  return visible_keys(view.block, tokens.fresh, tokens.context);
}

double keys_read(const StepShape& shape, const AttentionView& view) {
  if (view.crosses()) return encoded_keys(shape, view);
  if (chunks_are_mixed(shape, view)) return (value(view.block.window) + 1) / 2;
  const auto [fresh, context] = sequence_tokens(shape, view);
  const AttentionBlock& block = view.block;
  const double all = fresh + context;
  const double window = value(block.window);
  const double chosen = block.indexer && block.indexer->top_tokens > 0 ? fresh * value(block.indexer->top_tokens) : all;
  if (block.kv_compression > 1) {
    return std::max(1.0, std::min(all, window) + std::min(all / value(block.kv_compression), chosen));
  }
  if (window <= 0) return std::min(all, chosen);
  return std::min(all, block.kind == AttentionKind::chunked ? fresh + std::fmod(context, window) : window + fresh - 1);
}

EqualPrompts equal_prompts(const StepShape& shape, const AttentionView& view) {
  const double pairs = pairs_of(shape, view);
  const double window = value(view.block.window);
  const double full = window * (window + 1) / 2;
  if (window <= 0 || pairs <= full) {
    // Laws of tables count n^2 / 2 pairs: without those of the diagonal.
    const bool diagonal = view.block.causal && !view.crosses();
    const double halves = diagonal ? sequence_tokens(shape, view).fresh : 0.0;
    return {shape.prompts, std::max(1.0, std::sqrt(2 * pairs - halves))};
  }
  if (view.block.kind == AttentionKind::chunked) return {shape.prompts * pairs / full, window};
  return {shape.prompts, pairs / window + (window - 1) / 2};
}

std::function<double(const StepShape&)> attention_seconds(const ReadyKernel& kernel, const KernelRowValues& row,
                                                          const KernelLayout& layout, const AttentionView& view) {
  const std::size_t batch = layout.column("batch_size");
  const std::size_t isl = layout.column("isl");
  const std::size_t step = layout.column("step");
  return [=](const StepShape& shape) {
    KernelRowValues asked = row;
    if (sequences_of(shape, view) == 0) return 0.0;
    if (view.prefill) {
      const EqualPrompts equal = equal_prompts(shape, view);
      asked.set(batch, equal.count).set(isl, equal.length);
    } else {
      asked.set(batch, shape.decodes).set(step, std::max(0.0, table_keys(shape, view) - 1));
    }
    return kernel->seconds(asked);
  };
}

std::function<StepWork(const StepShape&)> attention_work(const AttentionView& view, const AttentionElements& elements,
                                                         double flops) {
  return [=, key = elements.cache_bytes * value(elements.cached),
          token = kActivationBytes * value(elements.fresh)](const StepShape& shape) {
    const double sequences = sequences_of(shape, view);
    if (sequences == 0) return StepWork{};
    const double bytes = keys_read(shape, view) * key + sequence_tokens(shape, view).fresh * token;
    return StepWork{sequences * bytes, sequences * pairs_of(shape, view) * flops};
  };
}

}  // namespace moecast
