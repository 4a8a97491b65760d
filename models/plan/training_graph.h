#pragma once
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/operator.h"
#include "models/plan/stages.h"
#include "models/plan/workload.h"

namespace moecast {

/// Of the executions that an operator stands for: those whose gradients are computed.
struct GradientNeed {
  double data = 0;    ///< gradient of its input: something is trained below it
  double weight = 0;  ///< gradient of its weights: they are trained
  double layer = 0;   ///< the backward pass reaches the layer at all
};

/// One for each operator of the forward pass.
///
/// Where nothing below an operator is trained, no gradient of its input is computed: a model whose experts alone are
/// trained stops at the lowest of them. Branches of a MoE block are told apart: the router's gradient comes from the
/// combination, not through the experts.
/// @param tied  the head's weights are the embedding's.
std::vector<GradientNeed> gradient_needs(const OperatorGraph& forward, const TrainingPlan& plan, bool tied);

/// The part whose weights an operator holds. @param tied  the head's weights are the embedding's.
ModelPart part_of(const Operator& op, bool tied);
/// It multiplies by weights that can be trained.
bool has_weights(const Operator& op);

/// Bytes that are kept between the forward and the backward pass of one micro-batch on a rank.
Bytes saved_activations(const OperatorGraph& forward, const std::vector<GradientNeed>& needs, Recomputation mode);

/// The forward pass of one micro-batch on one replica.
OperatorGraph micro_forward(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                            const StackEnds& ends = {});

/// All operators of one training step on rank 0, in order: forward, recomputation and backward of every micro-batch
/// (through Operator::count), then the reduction of gradients, then the optimiser.
///
/// A GEMM m x n x k has two gradients of as many FLOPs: that of its input, m x k x n, and that of its weights,
/// k x n x m. Experts have them over the rows of each. An attention core does 5 products instead of 2 (FlashAttention:
/// the scores are computed again). Exchanges between expert-parallel ranks happen again, reversed, and so do the sums
/// of tensor parallelism. Nothing overlaps: communication of gradients is not hidden behind the backward pass.
/// @throws InputError as build_graph, and for an impossible plan (micro_batch).
OperatorGraph training_graph(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                             const StackEnds& ends = {});

}  // namespace moecast
