#pragma once
#include <cstdint>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"

namespace moecast {

/// What the reference runtime executes: one rank; full causal attention; feed-forward and identity experts; routers by
/// token, with a linear or MLP network; shared experts and a parallel dense network; fp32 and bf16; prefill and decode.
/// @throws UsageError naming the first field that it does not support.
void require_executable(const Architecture& architecture, const Deployment& deployment, const Workload& workload);

/// Format that a model runs in.
DType executed_dtype(const Architecture& architecture, const Deployment& deployment);

/// New tokens of one step on all sequences.
std::int64_t executed_tokens(const Workload& workload);
/// New tokens of one sequence.
std::int64_t step_query(const Workload& workload);

}  // namespace moecast
