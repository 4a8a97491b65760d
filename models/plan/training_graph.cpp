#include "models/plan/training_graph.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "models/core/count.h"
#include "models/core/error.h"
#include "models/plan/graph_builder.h"
#include "models/plan/training_memory.h"
#include "models/plan/weight_gathers.h"

namespace moecast {
namespace {

/// Bytes an element of forward and backward passes of the loops between GEMMs: a gated activation reads gate, up and
/// the gradient and writes two gradients; a norm reads its input and the gradient.
constexpr double kGatedGrowth = 5.0 / 3;
constexpr double kPlainGrowth = 1.5;
/// Elementwise kernels read two fp32 numbers and write one.
constexpr double kElementwiseBytes = 12;

/// @param factor  bytes, or arithmetic, of the gradient over those of the forward pass.
void grow(Operator& gradient, double factor) {
  gradient.work = factor;
  gradient.activation_bytes *= factor;
  gradient.akin = true;
}

/// What has no gradients yet.
std::string missing_gradient(const Operator& op) {
  if (op.kind == OperatorKind::state_update) return "the gradient of a recurrent state";
  if (op.kind == OperatorKind::host) return "the gradient of a block of one's own cost";
  if (op.name.find(".indexer") != std::string::npos) return "training of a sparse attention's indexer";
  return {};
}

OperatorKind reversed(OperatorKind kind) {
  switch (kind) {
    case OperatorKind::all_gather: return OperatorKind::reduce_scatter;
    case OperatorKind::reduce_scatter: return OperatorKind::all_gather;
    case OperatorKind::all_to_all_dispatch: return OperatorKind::all_to_all_combine;
    case OperatorKind::all_to_all_combine: return OperatorKind::all_to_all_dispatch;
    case OperatorKind::permute: return OperatorKind::unpermute;
    case OperatorKind::unpermute: return OperatorKind::permute;
    default: return kind;
  }
}

class StepBuilder {
 public:
  StepBuilder(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
              const StackEnds& ends)
      : plan_(workload.training),
        tied_(architecture.tied_embeddings),
        packs_ahead_(deployment.backend == "onednn"),
        forward_(micro_forward(architecture, deployment, workload, ends)),
        needs_(gradient_needs(forward_, plan_, tied_)),
        parts_(part_weights(architecture, deployment, plan_, ends)),
        passes_(value(plan_.accumulation * plan_.passes)),
        layers_(count_layers(architecture)) {
    graph_.footprint = forward_.footprint + saved_activations(forward_, needs_, plan_.recomputation);
    for (const PartWeights& part : parts_) {
      graph_.footprint += Bytes(part.gradient_bytes / shares(ZeroShare::gradients, part) +
                                (part.state_bytes + part.master_bytes) / shares(ZeroShare::states, part));
    }
    graph_.layer_footprint = forward_.layer_footprint;
    graph_.stored_weights = forward_.stored_weights;
    graph_.layer_activations = forward_.layer_activations;
    graph_.layers = forward_.layers;
    graph_.not_executed = forward_.not_executed;
  }

  OperatorGraph build() {
    gather_weights(TrainingPhase::forward);
    for (const Operator& op : forward_.operators) add(op, TrainingPhase::forward, op.count);
    gather_weights(TrainingPhase::backward);
    recompute();
    for (std::size_t i = forward_.operators.size(); i-- > 0;) gradients(i);
    accumulate();
    reduce_gradients();
    optimise();
    return std::move(graph_);
  }

 private:
  /// @param executions  of one pass over a micro-batch.
  Operator& add(const Operator& like, TrainingPhase phase, double executions) {
    Operator op = like;
    op.phase = phase;
    op.count = executions * passes_;
    op.depends_on.clear();
    if (!graph_.operators.empty()) op.depends_on = {static_cast<int>(graph_.operators.size()) - 1};
    graph_.operators.push_back(std::move(op));
    return graph_.operators.back();
  }

  /// Once a step, over what all passes have left.
  Operator& add_once(OperatorKind kind, const std::string& name, TrainingPhase phase) {
    Operator op;
    op.kind = kind;
    op.name = name;
    op.stage = to_string(phase);
    op.dtype = DType::fp32;
    op.input_reuse = op.output_reuse = graph_.footprint;
    Operator& added = add(op, phase, 1);
    added.count = 1;
    return added;
  }

  /// `bytes` of arrays that are read and written once in order.
  Operator& add_sweep(const std::string& name, TrainingPhase phase, double bytes) {
    Operator& op = add_once(OperatorKind::elementwise, name, phase);
    op.shape.m = 1;
    op.shape.width = std::max<std::int64_t>(1, std::llround(bytes / kElementwiseBytes));
    op.activation_bytes = Bytes(bytes);
    op.akin = true;
    return op;
  }

  [[nodiscard]] double shares(ZeroShare what, const PartWeights& part) const { return shares_of(plan_, what, part); }

  /// ZeRO-3: the weights of each layer before it is computed, forward and backward.
  void gather_weights(TrainingPhase phase) {
    const double reached = phase == TrainingPhase::forward ? 1 : reached_ratio(forward_, needs_);
    for (const WeightGather& one : weight_gathers(parts_, plan_, tied_, layers_)) {
      const double messages = phase == TrainingPhase::forward ? one.forward : one.backward;
      const double times = messages * (one.of_layers ? reached : 1);
      if (times <= 0) continue;
      collective(OperatorKind::all_gather, "weights." + one.name, phase, one.bytes, one.ranks);
      graph_.operators.back().count = times * passes_;
    }
  }

  void recompute() {
    if (plan_.recomputation == Recomputation::none) return;
    for (const LayerSpan& span : forward_.layers) {
      for (std::size_t i = span.begin; i < span.end; ++i) {
        const Operator& op = forward_.operators[i];
        const double executions = plan_.recomputation == Recomputation::full ? needs_[i].layer : dropped(i, span.end);
        if (executions > 0) add(op, TrainingPhase::recompute, executions).name += ".again";
      }
    }
  }

  /// Executions of an operator whose result selective recomputation did not keep and some gradient needs.
  [[nodiscard]] double dropped(std::size_t i, std::size_t end) const {
    const Operator& op = forward_.operators[i];
    if (op.kind == OperatorKind::attention_prefill || op.kind == OperatorKind::attention_decode) return needs_[i].data;
    if (op.kind != OperatorKind::norm && op.kind != OperatorKind::activation) return 0;
    double most = 0;
    for (std::size_t j = i + 1; j < end && forward_.operators[j].block == op.block; ++j) {
      const Operator& reader = forward_.operators[j];
      const bool reads = op.reads_block_input ? reader.kind == OperatorKind::gemm && reader.reads_block_input
                                              : j == i + 1 && has_weights(reader);
      if (reads) most = std::max(most, needs_[j].weight);
    }
    return most;
  }

  void gradients(std::size_t i) {
    const Operator& op = forward_.operators[i];
    const GradientNeed& need = needs_[i];
    if (need.data <= 0 && need.weight <= 0) return;
    if (const std::string missing = missing_gradient(op); !missing.empty()) {
      graph_.not_executed.push_back(op.name + ": " + missing + " is not supported yet");
    }
    switch (op.kind) {
      case OperatorKind::gemm:
      case OperatorKind::grouped_gemm:
      case OperatorKind::convolution:
        // The gradient of the weights first: it frees the kept input.
        if (need.weight > 0) weight_gradient(op, need.weight);
        if (need.data > 0) input_gradient(op, need.data);
        return;
      case OperatorKind::norm:
        if (need.weight > 0) norm_weights(op, need.weight);
        if (need.data > 0) grow(backward(op, need.data), kPlainGrowth);
        return;
      case OperatorKind::embedding: {
        Operator& table = backward(op, need.weight);  // rows added to the table's gradient
        table.akin = true;
        table.activation_bytes = Bytes(kElementwiseBytes * value(op.shape.m) * value(op.shape.hidden));
        return;
      }
      case OperatorKind::attention_prefill:
      case OperatorKind::attention_decode: attention(op, need.data); return;
      case OperatorKind::activation:
        grow(backward(op, need.data), op.shape.gated != 0 ? kGatedGrowth : kPlainGrowth);
        return;
      case OperatorKind::router: scores(op, need.data); return;
      case OperatorKind::unpermute: combination(i); return;
      default: backward(op, need.data); return;
    }
  }

  /// The same kind of operator in the other direction.
  Operator& backward(const Operator& op, double executions) {
    Operator& gradient = add(op, TrainingPhase::backward, executions);
    gradient.kind = reversed(op.kind);
    gradient.name += ".gradient";
    gradient.weight_bytes = Bytes(0);
    return gradient;
  }

  /// Operands that the library stores in its own order before it multiplies, where weights are packed ahead: neither
  /// the transposed weights nor gradients are.
  void pack(const Operator& op, double executions, double elements) {
    if (!packs_ahead_) return;
    Operator& copy = add(op, TrainingPhase::backward, executions);
    copy.kind = OperatorKind::copy;
    copy.name += ".pack";
    copy.rows.clear();
    copy.shape = {};
    copy.shape.bytes = std::max<std::int64_t>(1, std::llround(elements * bytes_per_element(op.dtype)));
    copy.weight_bytes = Bytes(0);
    copy.activation_bytes = Bytes(2 * value(copy.shape.bytes));
    copy.flops = Flops(0);
  }

  /// m x k: gradients of the result times the transposed weights.
  void input_gradient(const Operator& op, double executions) {
    const double experts = op.rows.empty() ? 1 : value(std::max<std::int64_t>(1, op.shape.experts));
    pack(op, executions, experts * value(op.shape.n) * value(op.shape.k));
    Operator& gradient = add(op, TrainingPhase::backward, executions);
    gradient.name += ".input_gradient";
    gradient.akin = true;
    gradient.input_reuse = gradient.output_reuse = Bytes(0);
    if (op.kind == OperatorKind::convolution) return;
    std::swap(gradient.shape.n, gradient.shape.k);
    const double element = bytes_per_element(op.dtype);
    gradient.activation_bytes = Bytes(value(op.shape.m) * (value(op.shape.n) * element + 4 * value(op.shape.k)));
  }

  /// k x n, summed over the m rows: the kept input, transposed, times gradients of the result.
  void weight_gradient(const Operator& op, double executions) {
    const double rows = value(op.shape.m);
    pack(op, executions, rows * value(op.shape.n));
    Operator& gradient = add(op, TrainingPhase::backward, executions);
    gradient.name += ".weight_gradient";
    gradient.akin = true;
    gradient.weight_bytes = Bytes(0);
    gradient.input_reuse = graph_.footprint;   // kept since the forward pass
    gradient.weight_reuse = Bytes(0);          // just used
    gradient.output_reuse = graph_.footprint;  // every weight's gradient once a pass
    if (op.kind == OperatorKind::convolution) return;
    gradient.shape.m = op.shape.k;
    gradient.shape.k = op.shape.m;
    gradient.ragged_depth = !op.rows.empty();
    const double element = bytes_per_element(op.dtype);
    const double experts = op.rows.empty() ? 1 : value(std::max<std::int64_t>(1, op.shape.experts));
    gradient.activation_bytes =
        Bytes(rows * value(op.shape.k + op.shape.n) * element + 4 * experts * value(op.shape.k) * value(op.shape.n));
  }

  void norm_weights(const Operator& op, double executions) {
    Operator& gradient = add(op, TrainingPhase::backward, executions);
    gradient.kind = OperatorKind::elementwise;
    gradient.name += ".weight_gradient";
    gradient.shape.width = op.shape.hidden;
    gradient.shape.hidden = 0;
    gradient.akin = true;
  }

  void attention(const Operator& op, double executions) {
    Operator& gradient = backward(op, executions);
    grow(gradient, op.backward_flops / op.flops);
    gradient.flops = op.backward_flops;
    // Queries, keys, values and results are read with the gradient of the result; three gradients are written.
    gradient.activation_bytes = op.activation_bytes * 2;
  }

  void scores(const Operator& op, double executions) {
    Operator& gradient = backward(op, executions);
    gradient.kind = OperatorKind::elementwise;
    gradient.shape = {};
    gradient.shape.m = op.shape.tokens;
    gradient.shape.width = op.shape.experts;
  }

  /// The gradient of a token's result goes to its experts, weighed; the gates' is its product with each result.
  void combination(std::size_t i) {
    const Operator& op = forward_.operators[i];
    double gates = 0;
    for (std::size_t j = i; j-- > 0 && forward_.operators[j].block == op.block;) {
      if (forward_.operators[j].kind == OperatorKind::router) gates = needs_[j].data;
    }
    if (gates > 0) {
      Operator& gradient = add(op, TrainingPhase::backward, gates);
      gradient.kind = OperatorKind::elementwise;
      gradient.name += ".gate_gradient";
      gradient.shape = {};
      gradient.shape.m = op.shape.tokens * op.shape.top_k;
      gradient.shape.width = op.shape.hidden;
      gradient.akin = true;
    }
    backward(op, needs_[i].data);
  }

  /// Gradients of later micro-batches are added to those of earlier ones.
  void accumulate() {
    if (plan_.accumulation == 1) return;
    for (std::size_t i = 0; i < kModelParts; ++i) {
      if (parts_[i].gradient_bytes <= 0) continue;
      Operator& op =
          add_sweep("accumulate." + std::string(to_string(static_cast<ModelPart>(i))), TrainingPhase::backward,
                    3 * parts_[i].gradient_bytes / shares(ZeroShare::gradients, parts_[i]));
      op.count = value(plan_.accumulation - 1);
    }
  }

  void collective(OperatorKind kind, const std::string& name, TrainingPhase phase, double bytes, double ranks) {
    Operator& op = add_once(kind, name, phase);
    op.shape.bytes = std::llround(bytes);
    op.shape.ranks = std::llround(ranks);
    op.activation_bytes = Bytes(bytes);
  }

  /// In buckets large enough that the link decides, not their number.
  void reduce_gradients() {
    const bool shared = plan_.zero_stage > 0;
    for (std::size_t i = 0; i < kModelParts; ++i) {
      const PartWeights& part = parts_[i];
      if (part.gradient_bytes <= 0 || part.sharing_ranks <= 1) continue;
      collective(shared ? OperatorKind::reduce_scatter : OperatorKind::all_reduce,
                 "gradients." + std::string(to_string(static_cast<ModelPart>(i))), TrainingPhase::gradient_reduction,
                 part.gradient_bytes, part.sharing_ranks);
      // Who keeps a share of the gradients has no place to add up those of later micro-batches.
      if (shares(ZeroShare::gradients, part) > 1) graph_.operators.back().count = passes_;
    }
  }

  void optimise() {
    for (std::size_t i = 0; i < kModelParts; ++i) {
      const PartWeights& part = parts_[i];
      if (part.gradient_bytes <= 0) continue;
      const double ranks = shares(ZeroShare::states, part);
      const std::string name(to_string(static_cast<ModelPart>(i)));
      // Gradients are read, states and weights read and written; an fp32 copy stands for the weights, which are then
      // written only.
      const double bytes = part.gradient_bytes + 2 * (part.state_bytes + part.master_bytes) +
                           part.bytes * (part.master_bytes > 0 ? 1 : 2);
      add_sweep("optimizer." + name, TrainingPhase::optimizer, bytes / ranks);
      if (ranks > 1 && shares(ZeroShare::weights, part) <= 1) {
        collective(OperatorKind::all_gather, "optimizer." + name + ".gather", TrainingPhase::optimizer, part.bytes,
                   ranks);
      }
    }
  }

  const TrainingPlan& plan_;
  bool tied_;
  bool packs_ahead_;
  OperatorGraph forward_;
  std::vector<GradientNeed> needs_;
  std::array<PartWeights, kModelParts> parts_;
  double passes_;  ///< over micro-batches
  LayerCounts layers_;
  OperatorGraph graph_;
};

/// Capacities are those of training where they differ.
Architecture in_training(Architecture architecture) {
  for (auto* stack : {&architecture.encoder, &architecture.decoder}) {
    for (Layer& layer : *stack) {
      for (Block& block : layer.blocks) {
        auto* moe = std::get_if<MoeBlock>(&block);
        if (moe != nullptr && moe->capacity.train_factor) moe->capacity.eval_factor = moe->capacity.train_factor;
      }
    }
  }
  return architecture;
}

}  // namespace

OperatorGraph micro_forward(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                            const StackEnds& ends) {
  if (deployment.pp > 1) {
    throw InputError("pp", "pipeline stages of a training step are those of GPUs", "write --pp 1");
  }
  Workload micro = workload;
  micro.phase = Phase::train;
  micro.batch = micro_batch(workload, deployment);
  micro.context = 0;
  return forward_graph(in_training(architecture), deployment, micro, ends);
}

OperatorGraph training_graph(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                             const StackEnds& ends) {
  return StepBuilder(architecture, deployment, workload, ends).build();
}

}  // namespace moecast
