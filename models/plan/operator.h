#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/core/dtype.h"
#include "models/core/units.h"
#include "models/routing/row_group.h"

namespace moecast {

/// The one vocabulary: the profiler measures these, cost models are keyed by them, plans schedule them.
enum class OperatorKind {
  gemm,
  grouped_gemm,
  fused_moe,
  router,
  permute,
  unpermute,
  activation,
  norm,
  attention_prefill,
  attention_decode,
  state_update,
  convolution,
  embedding,
  elementwise,
  all_reduce,
  all_gather,
  reduce_scatter,
  all_to_all_dispatch,
  all_to_all_combine,
  point_to_point,
  weight_transfer,
  copy,
  read,
  call,
  host
};

std::string_view to_string(OperatorKind kind);
std::optional<OperatorKind> parse_operator_kind(std::string_view text);

/// Shape of one operator call. Each kind uses the fields that `shape_columns` names for it; the others stay 0.
struct OperatorShape {
  std::int64_t m = 0;       ///< rows (tokens of this call)
  std::int64_t n = 0;       ///< output width
  std::int64_t k = 0;       ///< input width
  std::int64_t tokens = 0;  ///< tokens T
  std::int64_t experts = 0;
  std::int64_t top_k = 0;
  std::int64_t hidden = 0;
  std::int64_t width = 0;    ///< intermediate width
  std::int64_t gated = 0;    ///< 0 or 1
  std::int64_t groups = 0;   ///< expert groups of the router
  std::int64_t batch = 0;    ///< sequences
  std::int64_t query = 0;    ///< new tokens of a sequence
  std::int64_t context = 0;  ///< KV entries of a sequence that the call reads, those of the new tokens included
  /// Keys that the new tokens of a sequence see together. 0: causal, each one more than the one before; what the
  /// profiler measures. Windows, encoders, cross and sparse attention say it.
  std::int64_t visible = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t bytes = 0;  ///< payload of copies and transfers
  std::int64_t ranks = 0;  ///< that a gradient's collective joins; 0 = those of the deployment
  friend bool operator==(const OperatorShape&, const OperatorShape&) = default;
};

struct ShapeColumn {
  std::string_view name;  ///< column in samples/*.csv and key in JSON
  std::int64_t OperatorShape::* field;
};

/// Columns that describe a call of this kind, in file order.
/// gemm: m n k; grouped_gemm: m n k of one expert's call; router: tokens experts top_k groups (scores and top-k, the
/// GEMM apart); permute, unpermute: tokens top_k hidden; activation: m width gated; norm: m hidden; attention_*:
/// batch query context heads kv_heads head_dim; elementwise: m width; copy, read: bytes; call: none.
std::span<const ShapeColumn> shape_columns(OperatorKind kind);

/// Part of a training step that an operator belongs to; inference is all forward.
enum class TrainingPhase { forward, recompute, backward, gradient_reduction, optimizer };
inline constexpr std::size_t kTrainingPhases = 5;
std::string_view to_string(TrainingPhase phase);

/// One node of an operator graph.
///
/// `rows` of grouped_gemm and activation: the ragged histogram; shape.m is its sum, shape.experts the experts touched.
/// With `ragged_depth` (weight gradients of experts) it is the depth k of each call instead, and shape.k its sum.
struct Operator {
  OperatorKind kind = OperatorKind::gemm;
  std::string name;   ///< "layers.3.experts.gate_up"
  std::string stage;  ///< router, dispatch, experts, combine, shared, attention, dense, head, ...
  OperatorShape shape;
  std::vector<RowGroup> rows;  ///< grouped_gemm and activation over experts: the ragged histogram
  DType dtype = DType::bf16;
  double count = 1;        ///< how many times this node runs (equal layers are folded)
  Bytes weight_bytes;      ///< distinct weights read once
  Bytes activation_bytes;  ///< read + written
  Flops flops;             ///< useful arithmetic, no padding
  /// Bytes touched since the input, and since the memory of the result, were last touched. nullopt: one layer;
  /// 0: just before.
  std::optional<Bytes> input_reuse;
  std::optional<Bytes> output_reuse;
  std::optional<Bytes> weight_reuse;  ///< the same of the right operand of a GEMM; nullopt: the whole step
  bool ragged_depth = false;
  /// Like no measured kernel in order or layout, but the same work: costed by the kind's law with a wider interval.
  bool akin = false;
  double work = 1;       ///< times what a kernel of this shape takes: gradients of loops touch more than the loops
  Flops backward_flops;  ///< of the gradients of an attention core; those of other kinds follow from the shape
  TrainingPhase phase = TrainingPhase::forward;
  int block = -1;                  ///< residual block of the step that it is part of; -1: embedding, head, transfers
  bool reads_block_input = false;  ///< and not the result of another operator of its block
  int rank = 0;
  int stream = 0;
  std::vector<int> depends_on;  ///< indices into OperatorGraph::operators
};

/// Operators [begin, end) of a graph that are a layer, folded `repeat` times.
struct LayerSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  double repeat = 1;
};

/// What one step executes, with the bytes that lie between two uses of the same weight.
struct OperatorGraph {
  std::vector<Operator> operators;
  Bytes footprint;                ///< touched weights, activations and KV of the whole step, copies included
  Bytes layer_footprint;          ///< the same of one layer: activation buffers are used again in every layer
  Bytes stored_weights;           ///< part of `footprint`
  Bytes layer_activations;        ///< part of both
  std::vector<LayerSpan> layers;  ///< in order; of a training step: those of its forward pass
  /// Parts of the architecture that no operator stands for yet: the list of operators is not the whole step.
  std::vector<std::string> not_executed;
};

}  // namespace moecast
