#pragma once
#include <functional>
#include <vector>

#include "models/plan/engine.h"
#include "sim/step/step_operators.h"

namespace moecast {

/// Attention layers that are alike, on a context-parallel rank.
struct ContextAttention {
  double count = 1;                                           ///< layers
  double cached = 0;                                          ///< elements of a token in the cache of a rank
  double outputs = 0;                                         ///< elements that attention returns for a row
  double heads = 0;                                           ///< of a rank
  std::function<double(const StepShape&)> prefill_seconds{};  ///< attention of prompts in one layer
};

/// The step of one of cp ranks: prompts' new tokens are dealt to the ranks so that each has an equal share of the pairs
/// of query and key, every rank generates for all sequences over its share of their keys.
/// @param all  without context parallelism; rows and expert_rows are left to the caller.
StepShape context_share(const StepShape& all, int cp);

/// Adds what context-parallel ranks exchange.
///
/// Prompts: keys and values of all tokens are gathered before attention, or passed around a ring, of which the part is
/// added that attention to the blocks at hand does not hide. Generation: softmax over parts of the keys is combined,
/// an all-gather of each head's maximum and sum (fp32) and an all-reduce of the outputs. Experts lie on all tp * dp *
/// cp ranks: rows of prompts are gathered and scattered over dp * cp; generating rows, which all cp ranks have, over
/// dp, and the experts' results are added up over cp.
void add_context_parallel(const std::vector<ContextAttention>& layers, const Deployment& deployment,
                          const EngineSpec& engine, const KernelCalibration& calibration, StepOperators& operators);

}  // namespace moecast
