#include "models/plan/training_memory.h"

#include <algorithm>

#include "models/architecture/accounting.h"
#include "models/core/count.h"
#include "models/plan/training_graph.h"

namespace moecast {
namespace {

/// Parameters of a rank by part, and the same in bytes of their own format.
class Parts {
 public:
  Parts(const Architecture& architecture, const Deployment& deployment, const StackEnds& ends)
      : architecture_(architecture),
        deployment_(deployment),
        weight_(bytes_per_weight(deployment.dtype.value_or(architecture.dtype))) {
    const bool bare = is_lone_block(architecture);
    for (const auto* stack : {&architecture.encoder, &architecture.decoder}) {
      if (stack->empty()) continue;
      const std::int64_t hidden = stack_hidden(architecture, stack == &architecture.encoder);
      for (const Layer& layer : *stack) {
        for (const Block& block : layer.blocks) {
          add_block(block, hidden);
          if (!bare) add(ModelPart::norms, value(hidden));
        }
      }
      if (!bare && ends.heads) add(ModelPart::norms, value(hidden));  // the final one
    }
    const double table = value(architecture.vocabulary) / deployment.tp;
    double widths = value(architecture.hidden);
    if (!architecture.encoder.empty() && stack_hidden(architecture, true) != architecture.hidden) {
      widths += value(stack_hidden(architecture, true));
    }
    if (ends.embeds) {
      add(ModelPart::embedding, table * widths + architecture.position_embedding_parameters);
    } else if (ends.heads && architecture.tied_embeddings) {
      add(ModelPart::embedding, table * value(architecture.hidden));
    }
    if (ends.heads && !architecture.tied_embeddings) add(ModelPart::head, table * value(architecture.hidden));
  }

  [[nodiscard]] const std::array<PartWeights, kModelParts>& parts() const { return parts_; }

 private:
  void add(ModelPart part, double parameters) { add(part, parameters, weight_); }
  void add(ModelPart part, double parameters, double bytes) {
    PartWeights& weights = parts_[static_cast<std::size_t>(part)];
    weights.parameters += parameters;
    weights.bytes += parameters * bytes;
  }

  void add_block(const Block& block, std::int64_t hidden) {
    const ParameterCount count = block_parameters(block, hidden, stack_hidden(architecture_, true));
    const int tp = deployment_.tp;
    const auto* moe = std::get_if<MoeBlock>(&block);
    if (moe == nullptr) {
      const bool dense = std::holds_alternative<DenseFfnBlock>(block) ||
                         std::holds_alternative<ConvolutionBlock>(block) || std::holds_alternative<OwnCostBlock>(block);
      return add(dense ? ModelPart::dense : ModelPart::attention, count.total / tp);
    }
    const int shards = deployment_.ep * expert_tensor_ranks(deployment_);
    const bool own = architecture_.expert_dtype && !deployment_.dtype;
    const double router = router_parameters(moe->router, moe->expert_count() + moe->zero_experts,
                                            hidden / std::max(1, moe->sub_token_heads));
    add(ModelPart::experts, count.routed_experts / shards,
        own ? bytes_per_weight(*architecture_.expert_dtype) : weight_);
    add(ModelPart::router, router);
    add(ModelPart::shared, (count.total - count.routed_experts - router) / tp);
  }

  const Architecture& architecture_;
  const Deployment& deployment_;
  double weight_;
  std::array<PartWeights, kModelParts> parts_{};
};

/// Bytes of a rank's weights that other ranks keep.
double elsewhere(const TrainingPlan& plan, const PartWeights& part) {
  return part.bytes * (1 - 1 / shares_of(plan, ZeroShare::weights, part));
}

/// The most that is gathered at once: the weights of a layer, or of a table.
double gathered_bytes(const Architecture& architecture, const Deployment& deployment, const TrainingPlan& plan,
                      const StackEnds& ends) {
  const auto parts = part_weights(architecture, deployment, plan, ends);
  double most = 0;
  for (const ModelPart table : {ModelPart::embedding, ModelPart::head}) {
    most = std::max(most, elsewhere(plan, parts[static_cast<std::size_t>(table)]));
  }
  Architecture one = architecture;
  one.vocabulary = 0;
  one.position_embedding_parameters = 0;
  for (auto Architecture::* stack : {&Architecture::encoder, &Architecture::decoder}) {
    one.encoder.clear();
    one.decoder.clear();
    const Layer* before = nullptr;
    for (const Layer& layer : architecture.*stack) {
      if (before != nullptr && *before == layer) continue;
      before = &layer;
      (one.*stack) = {layer};
      double sum = 0;
      for (const PartWeights& part : part_weights(one, deployment, plan)) sum += elsewhere(plan, part);
      most = std::max(most, sum);
    }
  }
  return most;
}

}  // namespace

double shares_of(const TrainingPlan& plan, ZeroShare what, const PartWeights& part) {
  return plan.zero_stage >= static_cast<int>(what) ? part.sharing_ranks : 1;
}

std::array<PartWeights, kModelParts> part_weights(const Architecture& architecture, const Deployment& deployment,
                                                  const TrainingPlan& plan, const StackEnds& ends) {
  std::array<PartWeights, kModelParts> parts = Parts(architecture, deployment, ends).parts();
  const DType common = deployment.dtype.value_or(architecture.dtype);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool experts = static_cast<ModelPart>(i) == ModelPart::experts;
    const DType format = experts && !deployment.dtype ? architecture.expert_dtype.value_or(common) : common;
    PartWeights& part = parts[i];
    part.sharing_ranks = value(plan.replicas * (experts ? 1 : deployment.dp));
    if (plan.frozen[i]) continue;
    const double master = format != DType::fp32 && plan.master_weights ? 4 : 0;
    part.gradient_bytes = part.parameters * bytes_per_element(gradient_dtype(plan, format));
    part.state_bytes = part.parameters * optimizer_states(plan.optimizer) * bytes_per_element(plan.state_dtype);
    part.master_bytes = part.parameters * master;
  }
  return parts;
}

TrainingMemory training_memory(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                               const StackEnds& ends) {
  const TrainingPlan& plan = workload.training;
  TrainingMemory memory;
  for (const PartWeights& part : part_weights(architecture, deployment, plan, ends)) {
    memory.gradients += Bytes(part.gradient_bytes / shares_of(plan, ZeroShare::gradients, part));
    memory.optimizer_states += Bytes((part.state_bytes + part.master_bytes) / shares_of(plan, ZeroShare::states, part));
    memory.weights_elsewhere += Bytes(elsewhere(plan, part));
  }
  if (plan.zero_stage >= 3) memory.gathered = Bytes(gathered_bytes(architecture, deployment, plan, ends));
  const OperatorGraph forward = micro_forward(architecture, deployment, workload, ends);
  memory.saved_activations =
      saved_activations(forward, gradient_needs(forward, plan, architecture.tied_embeddings), plan.recomputation);
  return memory;
}

}  // namespace moecast
