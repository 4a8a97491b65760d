#include <algorithm>
#include <array>

#include "models/core/count.h"
#include "models/plan/training_graph.h"

namespace moecast {
namespace {

bool is_gemm(const Operator& op) { return op.kind == OperatorKind::gemm || op.kind == OperatorKind::grouped_gemm; }
bool attends(const Operator& op) {
  return op.kind == OperatorKind::attention_prefill || op.kind == OperatorKind::attention_decode;
}

/// Chains of operators between the input of a block and its result.
enum class Branch { main, router, routed, shared };
constexpr std::size_t kBranches = 4;

Branch branch_of(const Operator& op) {
  if (op.stage == "router") return Branch::router;
  if (op.stage == "shared") return Branch::shared;
  const bool routed = op.stage == "dispatch" || op.stage == "experts" || op.stage == "combine";
  return routed ? Branch::routed : Branch::main;
}

/// The sum over a token's experts, and what follows it: where the router's gradient comes from.
bool weighs_by_gates(const Operator& op) {
  return op.stage == "combine" && (op.kind == OperatorKind::unpermute || is_gemm(op));
}

struct Need {
  bool data = false;
  bool weight = false;
};

/// One walk up a layer, or up what lies outside of layers.
class Walk {
 public:
  Walk(const TrainingPlan& plan, bool tied, bool below) : plan_(plan), tied_(tied), below_(below) {}

  Need step(const Operator& op) {
    if (!started_ || op.block != block_) begin(op.block);
    Need need;
    need.weight = has_weights(op) && plan_.trains(part_of(op, tied_));
    bool& trained = branch_trained_[static_cast<std::size_t>(branch_of(op))];
    const bool router = branch_trained_[static_cast<std::size_t>(Branch::router)];
    if (op.stage == "residual") {
      need.data = entry_;  // both ways down add up at the block's input
    } else if (op.reads_block_input || op.kind == OperatorKind::all_reduce) {
      need.data = input_;  // the sum of tensor parallelism returns at the input of the split GEMMs
    } else {
      need.data = input_ || trained || (weighs_by_gates(op) && router);
    }
    if (need.weight) {
      trained = below_ = trains_ = true;
      if (op.kind == OperatorKind::norm && op.reads_block_input) input_ = true;
    }
    return need;
  }

  [[nodiscard]] bool below() const { return below_; }
  [[nodiscard]] bool trains() const { return trains_; }

 private:
  void begin(int block) {
    started_ = true;
    block_ = block;
    entry_ = input_ = below_;
    branch_trained_.fill(false);
  }

  const TrainingPlan& plan_;
  bool tied_;
  bool below_;  ///< something is trained in the blocks so far
  bool trains_ = false;
  bool started_ = false;
  int block_ = 0;
  bool entry_ = false;  ///< the gradient of the block's input is wanted
  bool input_ = false;  ///< the same behind its norm
  std::array<bool, kBranches> branch_trained_{};
};

/// Bytes that an operator reads and that its gradients need again.
double input_bytes(const Operator& op) {
  const OperatorShape& s = op.shape;
  const double element = bytes_per_element(op.dtype);
  switch (op.kind) {
    case OperatorKind::gemm:
    case OperatorKind::grouped_gemm: return value(s.m) * value(s.k) * element;
    case OperatorKind::activation: return value(s.m) * value(s.width) * (s.gated != 0 ? 2 : 1) * element;
    case OperatorKind::norm: return value(s.m) * value(s.hidden) * element;
    case OperatorKind::attention_prefill:
    case OperatorKind::attention_decode:
      return value(s.batch) * (value(s.query * s.heads) + 2 * value(s.context * s.kv_heads)) * value(s.head_dim) *
             element;
    case OperatorKind::router: return 4 * value(s.tokens * s.experts);
    case OperatorKind::permute: return 4 * value(s.tokens * s.top_k);  // positions
    case OperatorKind::unpermute: return value(s.tokens * s.top_k) * value(s.hidden) * element;
    case OperatorKind::embedding: return 4 * value(s.m);  // token ids
    case OperatorKind::convolution: return op.activation_bytes.value() / 2;
    case OperatorKind::elementwise: return op.stage == "head" ? 4 * value(s.m) * value(s.width) : 0;  // of the loss
    default: return 0;
  }
}

/// Result of an attention core and the logarithm of each row's sum.
double attention_result(const Operator& op) {
  const OperatorShape& s = op.shape;
  return value(s.batch * s.query * s.heads) * (value(s.head_dim) * bytes_per_element(op.dtype) + 4);
}

/// Kept bytes of operators [begin, end), each as often as `needs` says.
double kept(const OperatorGraph& forward, const std::vector<GradientNeed>& needs, std::size_t begin, std::size_t end,
            bool selective) {
  double bytes = 0;
  int shared_block = -1;  // whose input is already counted
  bool normed = false;
  double router = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const Operator& op = forward.operators[i];
    const GradientNeed& need = needs[i];
    const Operator* before =
        i > begin && forward.operators[i - 1].block == op.block ? &forward.operators[i - 1] : nullptr;
    if (before == nullptr) {
      normed = false;
      router = 0;
    }
    double times = 0;
    if (is_gemm(op)) {
      times = need.weight;
      const bool remade =
          before != nullptr && (attends(*before) || (selective && before->kind == OperatorKind::activation));
      if (remade) times = 0;
      if (op.kind == OperatorKind::gemm && op.reads_block_input && times > 0) {
        if (op.block == shared_block || (selective && normed)) times = 0;
        shared_block = op.block;
      }
    } else if (op.kind == OperatorKind::norm) {
      times = std::max(need.data, need.weight);
      normed = normed || op.reads_block_input;
    } else if (op.kind == OperatorKind::unpermute) {
      times = router;
    } else if (op.kind == OperatorKind::embedding || op.kind == OperatorKind::convolution) {
      times = need.weight;
    } else {
      times = need.data;
      if (op.kind == OperatorKind::router) router = need.data;
      if (attends(op) && !selective) bytes += times * attention_result(op);
    }
    bytes += times * input_bytes(op);
  }
  return bytes;
}

}  // namespace

ModelPart part_of(const Operator& op, bool tied) {
  if (op.kind == OperatorKind::norm && (op.block < 0 || op.reads_block_input)) return ModelPart::norms;
  if (op.stage == "embedding") return ModelPart::embedding;
  if (op.stage == "head") return tied ? ModelPart::embedding : ModelPart::head;
  if (op.stage == "router") return ModelPart::router;
  if (op.stage == "experts") return ModelPart::experts;
  if (op.stage == "shared" || op.stage == "dispatch" || op.stage == "combine") return ModelPart::shared;
  return op.stage == "dense" ? ModelPart::dense : ModelPart::attention;
}

bool has_weights(const Operator& op) {
  return is_gemm(op) || op.kind == OperatorKind::convolution || op.kind == OperatorKind::norm ||
         op.kind == OperatorKind::embedding;
}

std::vector<GradientNeed> gradient_needs(const OperatorGraph& forward, const TrainingPlan& plan, bool tied) {
  std::vector<GradientNeed> needs(forward.operators.size());
  bool below = plan.input_gradient;
  std::size_t next = 0;
  const auto outside = [&](std::size_t end) {
    Walk walk(plan, tied, below);
    for (; next < end; ++next) {
      const Operator& op = forward.operators[next];
      const Need need = walk.step(op);
      // Words have no gradient.
      needs[next] = {need.data && op.kind != OperatorKind::embedding ? op.count : 0, need.weight ? op.count : 0, 0};
    }
    below = walk.below();
  };
  for (const LayerSpan& span : forward.layers) {
    outside(span.begin);
    // The lowest of equal layers may end the backward pass; those above it have it below them.
    Walk lowest(plan, tied, below);
    std::vector<Need> first;
    for (std::size_t i = span.begin; i < span.end; ++i) first.push_back(lowest.step(forward.operators[i]));
    Walk others(plan, tied, lowest.below());
    double reached = std::ranges::any_of(first, [](const Need& n) { return n.data || n.weight; }) ? 1 : 0;
    if (lowest.below()) reached += span.repeat - 1;
    for (std::size_t i = span.begin; i < span.end; ++i) {
      const Need above = others.step(forward.operators[i]);
      const Need& own = first[i - span.begin];
      const double calls = forward.operators[i].count / span.repeat;
      const auto times = [&](bool low, bool high) { return calls * ((low ? 1 : 0) + (high ? span.repeat - 1 : 0)); };
      needs[i] = {times(own.data, above.data), times(own.weight, above.weight), calls * reached};
    }
    below = lowest.below();
    next = span.end;
  }
  outside(forward.operators.size());
  return needs;
}

Bytes saved_activations(const OperatorGraph& forward, const std::vector<GradientNeed>& needs, Recomputation mode) {
  const bool selective = mode == Recomputation::selective;
  if (mode != Recomputation::full) return Bytes(kept(forward, needs, 0, forward.operators.size(), selective));
  double bytes = 0;
  double largest = 0;  // of a layer that is computed again
  std::size_t next = 0;
  for (const LayerSpan& span : forward.layers) {
    bytes += kept(forward, needs, next, span.begin, false);
    const double layers = needs[span.begin].layer * span.repeat / forward.operators[span.begin].count;
    if (layers > 0) {
      largest = std::max(largest, kept(forward, needs, span.begin, span.end, false) / layers);
      for (std::size_t i = span.begin; i < span.end; ++i) {
        if (!has_weights(forward.operators[i])) continue;
        bytes += layers * input_bytes(forward.operators[i]);
        break;
      }
    }
    next = span.end;
  }
  bytes += kept(forward, needs, next, forward.operators.size(), false);
  return Bytes(bytes + largest);
}

}  // namespace moecast
