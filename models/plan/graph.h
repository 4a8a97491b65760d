#pragma once
#include <optional>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/operator.h"
#include "models/plan/workload.h"

namespace moecast {

/// New tokens of a step: batch * prompt in prefill and encode, one a sequence in decode, both in mixed steps.
double step_tokens(const Workload& workload);

/// What one step of a deployment executes on rank 0, in order. Equal layers are folded through Operator::count.
///
/// A MoE layer is: router GEMM, router, permute, expert GEMM, activation, expert GEMM, unpermute, in the variants of
/// Deployment::strategy. A transformer layer is norm, fused QKV GEMM, rotary, attention, output GEMM, residual, and
/// norm, MoE or feed-forward network, residual; a model begins with the embedding and ends with norm and head.
/// @throws InputError when a degree of parallelism does not divide what it splits, for a workload below one token, and
/// for what no engine executes yet.
OperatorGraph build_graph(const Architecture& architecture, const Deployment& deployment, const Workload& workload);

}  // namespace moecast
