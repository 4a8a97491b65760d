#include <algorithm>

#include "models/core/count.h"
#include "models/plan/graph_builder.h"

namespace moecast {
namespace {}  // namespace

void GraphBuilder::depthwise(const std::string& name, std::int64_t channels, std::int64_t size) {
  Operator& op = add(OperatorKind::convolution, name, "attention");
  op.shape.m = tokens_;
  op.shape.n = channels;
  op.shape.k = size;
  op.input_reuse = Bytes(0);
  op.weight_bytes = Bytes(value(channels * size) * element_);
  op.activation_bytes = Bytes(2 * value(tokens_ * channels) * element_);
  op.flops = Flops(2 * value(tokens_ * channels) * value(size));
  current_layer_ += op.weight_bytes.value();
}

void GraphBuilder::state_update(const std::string& name, std::int64_t heads, std::int64_t key_dim,
                                std::int64_t value_dim) {
  for (const SequencePart& part : parts_) {
    Operator& op = add(OperatorKind::state_update, name, "attention");
    op.shape.batch = part.batch;
    op.shape.query = part.query;
    op.shape.context = value_dim;
    op.shape.heads = heads;
    op.shape.kv_heads = heads;
    op.shape.head_dim = key_dim;
    const double state = 4 * value(heads * key_dim) * value(value_dim);
    op.activation_bytes = Bytes(2 * value(part.batch) * state +
                                value(part.batch * part.query * heads) * value(2 * key_dim + 2 * value_dim) * element_);
    op.flops = Flops(6 * value(part.batch * part.query * heads) * value(key_dim) * value(value_dim));
    kv_bytes_ += value(part.batch) * state * repeat_;
  }
}

void GraphBuilder::state_space(const StateSpaceBlock& block, const std::string& name) {
  const std::int64_t inner = divide(block.inner_width, deployment_.tp, "inner width", "tp");
  const std::int64_t state = block.state_size;
  if (block.version == 1) {
    gemm(name + ".in", "attention", tokens_, 2 * inner, hidden_, block_input());
    depthwise(name + ".conv", inner, block.conv_size);
    gemm(name + ".x", "attention", tokens_, block.dt_rank + 2 * state, inner, Bytes(0));
    gemm(name + ".dt", "attention", tokens_, inner, block.dt_rank, Bytes(0));
    state_update(name + ".state", inner, state, 1);
  } else {
    const std::int64_t heads = divide(block.heads, deployment_.tp, "state-space heads", "tp");
    const std::int64_t groups = std::max<std::int64_t>(1, block.groups / deployment_.tp);
    gemm(name + ".in", "attention", tokens_, 2 * inner + 2 * groups * state + heads, hidden_, block_input());
    depthwise(name + ".conv", inner + 2 * groups * state, block.conv_size);
    state_update(name + ".state", heads, state, inner / std::max<std::int64_t>(1, heads));
  }
  gemm(name + ".out", "attention", tokens_, hidden_, inner, Bytes(0));
  reduce(name, "attention");
}

/// Inputs of all steps in one GEMM, then one step after another.
void GraphBuilder::recurrent(const RecurrentBlock& block, const std::string& name) {
  const std::int64_t gates = block.gates * block.width;
  const std::int64_t out = block.projection > 0 ? block.projection : block.width;
  gemm(name + ".in", "attention", tokens_, gates, hidden_, block_input());
  const double before = current_layer_;
  double stored = 0;
  for (const SequencePart& part : parts_) {
    current_layer_ = before;  // every part reads the same matrices
    const double steps = repeat_ * value(part.query);
    gemm(name + ".step", "attention", part.batch, gates, out, Bytes(0)).count = steps;
    Operator& activation = add(OperatorKind::activation, name + ".gates", "attention");
    activation.shape.m = part.batch;
    activation.shape.width = gates;
    activation.input_reuse = Bytes(0);
    activation.activation_bytes = Bytes(value(part.batch * gates) * (4 + element_));
    activation.count = steps;
    if (block.projection > 0) {
      gemm(name + ".project", "attention", part.batch, out, block.width, Bytes(0)).count = steps;
    }
    stored = std::max(stored, current_layer_);
  }
  current_layer_ = stored;
}

void GraphBuilder::convolution(const ConvolutionBlock& block, const std::string& name) {
  Operator& op = add(OperatorKind::convolution, name, "dense");
  op.shape.m = tokens_;
  op.shape.n = block.out_channels;
  op.shape.k = block.in_channels * block.kernel_height * block.kernel_width / std::max<std::int64_t>(1, block.groups);
  op.input_reuse = block_input().reuse;
  op.reads_block_input = true;
  op.weight_bytes = Bytes(value(op.shape.n) * value(op.shape.k) * bytes_per_weight(dtype_));
  op.activation_bytes = Bytes(value(tokens_) * value(block.in_channels + block.out_channels) * element_);
  op.flops = Flops(2 * value(tokens_) * value(op.shape.n) * value(op.shape.k));
  current_layer_ += op.weight_bytes.value();
}

void GraphBuilder::own_cost(const OwnCostBlock& block, const std::string& name) {
  Operator& op = add(OperatorKind::host, name, "dense");
  op.weight_bytes = Bytes(block.parameters * bytes_per_weight(dtype_));
  op.activation_bytes = Bytes(block.bytes_per_token * value(tokens_));
  op.flops = Flops(block.flops_per_token * value(tokens_));
  current_layer_ += op.weight_bytes.value();
}

}  // namespace moecast
