#include "models/plan/graph_builder.h"

#include <algorithm>
#include <cmath>

#include "models/architecture/accounting.h"
#include "models/core/error.h"

namespace moecast {
namespace {

double value(std::int64_t x) { return static_cast<double>(x); }

double row_sum(const std::vector<RowGroup>& rows) {
  double sum = 0;
  for (const RowGroup& group : rows) sum += group.rows * group.experts;
  return sum;
}

double expert_sum(const std::vector<RowGroup>& rows) {
  double sum = 0;
  for (const RowGroup& group : rows) sum += group.experts;
  return sum;
}

/// oneDNN stores packed weights in blocks of this many columns.
constexpr std::int64_t kPackedColumns = 64;

}  // namespace

GraphBuilder::GraphBuilder(const Architecture& architecture, const Deployment& deployment, const Workload& workload)
    : architecture_(architecture),
      deployment_(deployment),
      workload_(workload),
      dtype_(deployment.dtype.value_or(architecture.dtype)),
      element_(bytes_per_element(dtype_)),
      tokens_(static_cast<std::int64_t>(step_tokens(workload))) {
  if (tokens_ < 1) throw InputError("", "a step needs at least one token", "give --batch or --prompt above zero");
  if (workload.copies < 1) throw InputError("copies", "is " + std::to_string(workload.copies), "expected at least 1");
  for (const int degree : {deployment.tp, deployment.ep, deployment.dp, deployment.pp, deployment.threads}) {
    if (degree < 1) throw InputError("", "a degree of parallelism must be at least 1");
  }
}

std::int64_t GraphBuilder::divide(std::int64_t what, int ranks, const std::string& name,
                                  const std::string& degree) const {
  if (what % ranks != 0) {
    throw InputError(degree, std::to_string(ranks) + " ranks do not divide " + name + " = " + std::to_string(what),
                     "choose a degree that divides it");
  }
  return what / ranks;
}

double GraphBuilder::stored_bytes(std::int64_t n, std::int64_t k) const {
  const bool packed = deployment_.backend == "onednn";
  const std::int64_t columns = packed ? (n + kPackedColumns - 1) / kPackedColumns * kPackedColumns : n;
  return value(columns) * value(k) * bytes_per_weight(dtype_);
}

Operator& GraphBuilder::add(OperatorKind kind, std::string name, std::string stage) {
  Operator op;
  op.kind = kind;
  op.name = std::move(name);
  op.stage = std::move(stage);
  op.dtype = dtype_;
  op.count = repeat_;
  if (!graph_.operators.empty()) op.depends_on = {static_cast<int>(graph_.operators.size()) - 1};
  graph_.operators.push_back(std::move(op));
  return graph_.operators.back();
}

Operator& GraphBuilder::gemm(std::string name, std::string stage, std::int64_t m, std::int64_t n, std::int64_t k,
                             std::optional<Bytes> input_reuse) {
  Operator& op = add(OperatorKind::gemm, std::move(name), std::move(stage));
  op.shape.m = m;
  op.shape.n = n;
  op.shape.k = k;
  op.input_reuse = input_reuse;
  op.weight_bytes = Bytes(value(n) * value(k) * bytes_per_weight(dtype_));
  op.activation_bytes = Bytes(value(m) * value(k) * element_ + 4 * value(m) * value(n));
  op.flops = Flops(2 * value(m) * value(n) * value(k));
  current_layer_ += stored_bytes(n, k);
  current_activations_ += op.activation_bytes.value();
  return op;
}

Operator& GraphBuilder::grouped_gemm(std::string name, std::string stage, const std::vector<RowGroup>& rows,
                                     std::int64_t n, std::int64_t k) {
  Operator& op = add(OperatorKind::grouped_gemm, std::move(name), std::move(stage));
  op.rows = rows;
  op.shape.n = n;
  op.shape.k = k;
  const double experts = expert_sum(rows);
  const double total = row_sum(rows);
  op.shape.m = std::llround(total);
  op.shape.experts = std::llround(experts);
  op.weight_bytes = Bytes(experts * value(n) * value(k) * bytes_per_weight(dtype_));
  op.activation_bytes = Bytes(total * (value(k) * element_ + 4 * value(n)));
  op.flops = Flops(2 * total * value(n) * value(k));
  current_layer_ += experts * stored_bytes(n, k);
  return op;
}

std::optional<Bytes> GraphBuilder::block_input() const { return normed_ ? std::optional(Bytes(0)) : std::nullopt; }

double GraphBuilder::expert_bytes(const ExpertSpec& spec, double rows, std::int64_t hidden) const {
  const std::int64_t up = spec.width * (spec.gated ? 2 : 1);
  return stored_bytes(up, hidden) + stored_bytes(hidden, spec.width) +
         rows * (value(hidden + spec.width) * element_ + 4 * value(up + hidden));
}

void GraphBuilder::expert_layers(const ExpertSpec& spec, const std::string& name, const std::string& stage,
                                 const std::vector<RowGroup>& rows, std::int64_t hidden, const ExpertReuse& reuse) {
  if (spec.kind == ExpertKind::identity || rows.empty()) return;
  if (spec.kind != ExpertKind::ffn) {
    throw InputError("",
                     name +
                         ": only feed-forward and identity experts are executed; other kinds are not supported "
                         "yet",
                     "count their cost as an own-cost block");
  }
  const Bytes one(expert_bytes(spec, row_sum(rows) / std::max(1.0, expert_sum(rows)), hidden));
  for (int hop = 0; hop < spec.depth; ++hop) {
    const std::string base = spec.depth > 1 ? name + ".hop" + std::to_string(hop) : name;
    Operator& up =
        grouped_gemm(base + (spec.gated ? ".gate_up" : ".up"), stage, rows, spec.width * (spec.gated ? 2 : 1), hidden);
    up.input_reuse = hop == 0 ? reuse.input : Bytes(0);
    up.output_reuse = one;
    Operator& activation = add(OperatorKind::activation, base + ".activation", stage);
    activation.rows = rows;
    activation.shape.width = spec.width;
    activation.shape.gated = spec.gated ? 1 : 0;
    activation.shape.m = std::llround(row_sum(rows));
    activation.input_reuse = Bytes(0);
    activation.output_reuse = one;
    activation.activation_bytes = Bytes(row_sum(rows) * value(spec.width) * ((spec.gated ? 8 : 4) + element_));
    Operator& down = grouped_gemm(base + ".down", stage, rows, hidden, spec.width);
    down.input_reuse = Bytes(0);
    if (reuse.scratch_output || hop + 1 < spec.depth) down.output_reuse = one;
  }
  current_activations_ += row_sum(rows) * value(hidden) * (element_ + 4);
}

void GraphBuilder::dense(const ExpertSpec& spec, const std::string& name, const std::string& stage) {
  ExpertSpec shard = spec;
  shard.width = divide(spec.width, deployment_.tp, name + " width", "tp");
  if (spec.kind == ExpertKind::identity) return;
  if (spec.kind != ExpertKind::ffn) throw InputError("", name + ": this kind of network is not supported yet");
  for (int hop = 0; hop < spec.depth; ++hop) {
    const std::int64_t hidden = architecture_.hidden;
    gemm(name + (spec.gated ? ".gate_up" : ".up"), stage, tokens_, shard.width * (spec.gated ? 2 : 1), hidden,
         hop == 0 ? block_input() : Bytes(0));
    Operator& activation = add(OperatorKind::activation, name + ".activation", stage);
    activation.shape.m = tokens_;
    activation.shape.width = shard.width;
    activation.shape.gated = spec.gated ? 1 : 0;
    activation.input_reuse = Bytes(0);
    activation.activation_bytes = Bytes(value(tokens_ * shard.width) * ((spec.gated ? 8 : 4) + element_));
    gemm(name + ".down", stage, tokens_, hidden, shard.width, Bytes(0));
  }
}

void GraphBuilder::norm(const std::string& name, std::int64_t rows) {
  Operator& op = add(OperatorKind::norm, name, "norm");
  op.shape.m = rows;
  op.shape.hidden = architecture_.hidden;
  op.activation_bytes = Bytes(value(rows * architecture_.hidden) * (4 + element_));
  current_activations_ += op.activation_bytes.value();
}

void GraphBuilder::residual(const std::string& name, std::int64_t rows) {
  Operator& op = add(OperatorKind::elementwise, name, "residual");
  op.shape.m = rows;
  op.shape.width = architecture_.hidden;
  op.activation_bytes = Bytes(12 * value(rows * architecture_.hidden));
}

void GraphBuilder::collective(OperatorKind kind, std::string name, std::string stage, double bytes) {
  Operator& op = add(kind, std::move(name), std::move(stage));
  op.shape.bytes = std::llround(bytes);
  op.activation_bytes = Bytes(bytes);
}

void GraphBuilder::attention(const AttentionBlock& block, const std::string& name) {
  if (block.linear || block.latent || block.indexer || block.kind == AttentionKind::cross) {
    throw InputError("", name + ": this kind of attention has no operators yet; it is counted, not executed",
                     "full, sliding-window and chunked attention are");
  }
  if (block.q_rank > 0 || block.out_rank > 0 || block.kv_compression > 1) {
    throw InputError("", name + ": low-rank projections and compressed caches are not supported yet",
                     "they are counted, not executed");
  }
  const std::int64_t heads = divide(block.heads, deployment_.tp, "heads", "tp");
  const std::int64_t kv_heads = std::max<std::int64_t>(1, block.kv_heads / deployment_.tp);
  const std::int64_t size = block.head_dim;
  const std::int64_t value_size = block.value_head_dim > 0 ? block.value_head_dim : size;
  gemm(name + ".qkv", "attention", tokens_,
       (heads * (block.output_gate ? 2 : 1) + kv_heads) * size + (block.shared_kv ? 0 : kv_heads * value_size),
       architecture_.hidden, block_input());
  Operator& rotary = add(OperatorKind::elementwise, name + ".rotary", "attention");
  rotary.shape.m = tokens_;
  rotary.shape.width = (heads + kv_heads) * size;
  rotary.input_reuse = Bytes(0);
  rotary.activation_bytes = Bytes(12 * value(tokens_ * (heads + kv_heads) * size));
  const auto core = [&](OperatorKind kind, std::int64_t batch, std::int64_t query, std::int64_t context) {
    if (batch < 1) return;
    const std::int64_t seen = kept_tokens(block, context);
    Operator& op = add(kind, name + ".core", "attention");
    op.shape.batch = batch;
    op.shape.query = query;
    op.shape.context = seen;
    op.shape.heads = heads;
    op.shape.kv_heads = kv_heads;
    op.shape.head_dim = size;
    const double kv = 2 * value(batch * seen * kv_heads * size) * element_;
    op.activation_bytes = Bytes(kv + value(batch * query * heads * size) * (4 + element_));
    const double visible = value(batch) * (value(query) * value(seen) - value(query) * value(query - 1) / 2);
    op.flops = Flops(4 * std::max(visible, 0.0) * value(heads * size));
    kv_bytes_ += kv * repeat_;
  };
  const Workload& w = workload_;
  if (w.phase == Phase::prefill || w.phase == Phase::encode) {
    core(OperatorKind::attention_prefill, w.batch, w.prompt, w.context + w.prompt);
  } else {
    core(OperatorKind::attention_decode, w.batch, 1, w.context + 1);
    if (w.phase == Phase::mixed) core(OperatorKind::attention_prefill, w.prefill_batch, w.prompt, w.prompt);
  }
  gemm(name + ".out", "attention", tokens_, architecture_.hidden, heads * value_size, Bytes(0));
  if (deployment_.tp > 1) {
    collective(OperatorKind::all_reduce, name + ".all_reduce", "attention",
               value(tokens_ * architecture_.hidden) * element_);
  }
}

void GraphBuilder::layer(const Layer& layer, const std::string& name, double repeat, bool transformer) {
  repeat_ = repeat;
  normed_ = transformer;
  current_layer_ = current_activations_ = 0;
  for (const Block& block : layer.blocks) {
    if (transformer) norm(name + ".norm", tokens_);
    if (const auto* a = std::get_if<AttentionBlock>(&block)) {
      attention(*a, name + ".attention");
    } else if (const auto* m = std::get_if<MoeBlock>(&block)) {
      moe(*m, name + ".moe");
    } else if (const auto* d = std::get_if<DenseFfnBlock>(&block)) {
      dense(d->ffn, name + ".ffn", "dense");
      if (deployment_.tp > 1) {
        collective(OperatorKind::all_reduce, name + ".all_reduce", "dense",
                   value(tokens_ * architecture_.hidden) * element_);
      }
    } else {
      throw InputError("", name + ": recurrent, state-space, convolution and own-cost blocks have no operators yet",
                       "they are counted, not executed");
    }
    if (transformer) residual(name + ".residual", tokens_);
  }
  stored_weights_ += current_layer_ * repeat;
  layer_weights_ = std::max(layer_weights_, current_layer_);
  layer_activations_ = std::max(layer_activations_, current_activations_);
}

void GraphBuilder::embedding() {
  repeat_ = 1;
  Operator& op = add(OperatorKind::embedding, "embedding", "embedding");
  op.shape.m = tokens_;
  op.shape.hidden = architecture_.hidden;
  op.activation_bytes = Bytes(value(tokens_ * architecture_.hidden) * (element_ + 4));
}

void GraphBuilder::head() {
  repeat_ = 1;
  current_layer_ = 0;
  const Workload& w = workload_;
  const std::int64_t rows = w.phase == Phase::mixed ? w.batch + w.prefill_batch : w.batch;
  norm("head.norm", rows);
  gemm("head", "head", rows, divide(architecture_.vocabulary, deployment_.tp, "vocabulary", "tp"), architecture_.hidden,
       Bytes(0));
  stored_weights_ += current_layer_;
}

OperatorGraph GraphBuilder::finish() {
  const auto copies = static_cast<double>(workload_.copies);
  graph_.footprint = Bytes(copies * stored_weights_ + kv_bytes_ + layer_activations_);
  graph_.layer_footprint = Bytes(layer_weights_ + layer_activations_);
  return std::move(graph_);
}

}  // namespace moecast
