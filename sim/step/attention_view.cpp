#include "sim/step/attention_view.h"

#include <algorithm>
#include <cmath>

#include "sim/step/collective_cost.h"

namespace moecast {

double equal_causal_prompt(const StepShape& shape, const AttentionView& view) {
  const double fresh = std::max(1.0, shape.context / shape.prompts);
  const double prefix = shape.prefix / shape.prompts;
  switch (view.pairs) {
    case AttentionPairs::causal: break;
    case AttentionPairs::all: return std::sqrt(2 * fresh * (fresh + prefix));
    case AttentionPairs::encoded: return std::sqrt(2 * fresh * shape.source * view.source_layers);
  }
  return std::sqrt(fresh * fresh + 2 * fresh * shape.prefix / shape.prompts);
}

double decode_keys(const StepShape& shape, const AttentionView& view) {
  return view.pairs == AttentionPairs::encoded ? shape.source * view.source_layers : shape.decode_kv;
}

std::function<double(const StepShape&)> attention_seconds(const ReadyKernel& kernel, const KernelRowValues& row,
                                                          const KernelLayout& layout, const AttentionView& view) {
  const std::size_t batch = layout.column("batch_size");
  const std::size_t isl = layout.column("isl");
  const std::size_t step = layout.column("step");
  return [=](const StepShape& shape) {
    KernelRowValues asked = row;
    if (view.prefill) {
      if (shape.prompts == 0) return 0.0;
      asked.set(batch, shape.prompts).set(isl, std::max(1.0, equal_causal_prompt(shape, view)));
    } else {
      if (shape.decodes == 0) return 0.0;
      asked.set(batch, shape.decodes).set(step, std::max(0.0, decode_keys(shape, view) - 1));
    }
    return kernel->seconds(asked);
  };
}

std::function<StepWork(const StepShape&)> attention_work(const AttentionView& view, std::int64_t cached, double flops) {
  const double bytes = kActivationBytes * static_cast<double>(cached);
  return [=](const StepShape& shape) {
    if (view.prefill) {
      if (shape.prompts == 0) return StepWork{};
      const double length = equal_causal_prompt(shape, view);
      return StepWork{shape.prompts * length * bytes, shape.prompts * flops * length * length / 2};
    }
    const double keys = decode_keys(shape, view);
    return StepWork{shape.decodes * keys * bytes, shape.decodes * keys * flops};
  };
}

}  // namespace moecast
