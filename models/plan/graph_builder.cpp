#include "models/plan/graph_builder.h"

#include <algorithm>
#include <cmath>

#include "models/architecture/accounting.h"
#include "models/core/count.h"
#include "models/core/error.h"

namespace moecast {
namespace {

double row_sum(const std::vector<RowGroup>& rows) {
  double sum = 0;
  for (const RowGroup& group : rows) sum += group.rows * group.experts;
  return sum;
}

/// oneDNN stores packed weights in blocks of this many columns.
constexpr std::int64_t kPackedColumns = 64;

}  // namespace

double expert_sum(const std::vector<RowGroup>& rows) {
  double sum = 0;
  for (const RowGroup& group : rows) sum += group.experts;
  return sum;
}

std::int64_t output_width(const ExpertSpec& spec, std::int64_t inputs) {
  return spec.output > 0 ? spec.output : inputs;
}

GraphBuilder::GraphBuilder(const Architecture& architecture, const Deployment& deployment, const Workload& workload)
    : architecture_(architecture),
      deployment_(deployment),
      workload_(workload),
      dtype_(deployment.dtype.value_or(architecture.dtype)),
      hidden_(architecture.hidden),
      element_(bytes_per_element(dtype_)) {
  if (step_tokens(workload) < 1) {
    throw InputError("", "a step needs at least one token", "give --batch or --prompt above zero");
  }
  if (workload.copies < 1) throw InputError("copies", "is " + std::to_string(workload.copies), "expected at least 1");
  for (const int degree : {deployment.tp, deployment.ep, deployment.dp, deployment.pp, deployment.threads}) {
    if (degree < 1) throw InputError("", "a degree of parallelism must be at least 1");
  }
  if (deployment.cp != 1) throw InputError("cp", "contexts are shared by GPUs that serve only", "leave it out");
  if (deployment.draft_tokens != 0) {
    throw InputError("draft_tokens", "are guessed on GPUs only, so far", "leave them out");
  }
  if (deployment.eager) {
    throw InputError("eager", "means nothing to a CPU or to a training step: no graphs are replayed there",
                     "leave it out");
  }
  if (!deployment.all_reduce.empty()) {
    throw InputError("all_reduce", "is chosen for steps that GPUs serve", "leave it out");
  }
  if (deployment.kv_dtype && workload.phase != Phase::train && *deployment.kv_dtype != dtype_) {
    throw InputError("kv_dtype", "of a CPU is that of its arithmetic", "leave it out");
  }
  if (deployment.redundant_experts != 0) {
    throw InputError("redundant_experts", "experts have copies on GPUs only", "leave it out");
  }
  if (deployment.micro_batches) throw InputError("micro_batches", "pass the stages of GPUs only", "leave it out");
}

void GraphBuilder::begin_stack(bool encoder) {
  const Workload& w = workload_;
  hidden_ = stack_hidden(architecture_, encoder);
  const auto on_rank = [&](std::int64_t batch) { return (batch + deployment_.dp - 1) / deployment_.dp; };
  const std::int64_t source = source_tokens(w);
  const std::int64_t prefilled = w.phase == Phase::mixed ? w.prefill_batch : w.batch;
  parts_.clear();
  if (encoder) {
    const bool alone = w.phase == Phase::encode || (w.phase == Phase::train && architecture_.decoder.empty());
    parts_.push_back({on_rank(prefilled), alone ? w.prompt : source});
  } else {
    if (w.phase == Phase::decode || w.phase == Phase::mixed) {
      parts_.push_back({on_rank(w.batch), 1, w.context, true, source});
    }
    if (w.phase != Phase::decode) {
      parts_.push_back({on_rank(prefilled), w.prompt, prefix_tokens(w), false, source, true});
    }
  }
  std::erase_if(parts_, [](const SequencePart& part) { return part.batch < 1; });
  tokens_ = 0;
  for (const SequencePart& part : parts_) tokens_ += part.batch * part.query;
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
  op.block = block_;
  if (!graph_.operators.empty()) op.depends_on = {static_cast<int>(graph_.operators.size()) - 1};
  graph_.operators.push_back(std::move(op));
  return graph_.operators.back();
}

Operator& GraphBuilder::gemm(std::string name, std::string stage, std::int64_t m, std::int64_t n, std::int64_t k,
                             const GemmInput& input) {
  Operator& op = add(OperatorKind::gemm, std::move(name), std::move(stage));
  op.shape.m = m;
  op.shape.n = n;
  op.shape.k = k;
  op.input_reuse = input.reuse;
  op.reads_block_input = input.of_block;
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

GemmInput GraphBuilder::block_input() const { return {normed_ ? std::optional(Bytes(0)) : std::nullopt, true}; }

double GraphBuilder::expert_bytes(const ExpertSpec& spec, double rows, std::int64_t hidden) const {
  const std::int64_t up = spec.width * (spec.gated ? 2 : 1);
  const std::int64_t out = output_width(spec, hidden);
  return stored_bytes(up, hidden) + stored_bytes(out, spec.width) +
         rows * (value(hidden + spec.width) * element_ + 4 * value(up + out));
}

void GraphBuilder::expert_layers(const ExpertSpec& spec, const std::string& name, const std::string& stage,
                                 const std::vector<RowGroup>& rows, std::int64_t hidden, const ExpertReuse& reuse) {
  if (spec.kind == ExpertKind::identity || rows.empty()) return;
  if (spec.kind != ExpertKind::ffn) {
    refuse(name, "experts that are neither feed-forward nor identity");
    return;
  }
  const DType outside = dtype_;
  if (stage == "experts" && architecture_.expert_dtype && !deployment_.dtype) dtype_ = *architecture_.expert_dtype;
  const Bytes one(expert_bytes(spec, row_sum(rows) / std::max(1.0, expert_sum(rows)), hidden));
  for (int hop = 0; hop < spec.depth; ++hop) {
    const std::string base = spec.depth > 1 ? name + ".hop" + std::to_string(hop) : name;
    Operator& up =
        grouped_gemm(base + (spec.gated ? ".gate_up" : ".up"), stage, rows, spec.width * (spec.gated ? 2 : 1), hidden);
    up.input_reuse = hop == 0 ? reuse.input : Bytes(0);
    up.reads_block_input = hop == 0 && reuse.of_block;
    up.output_reuse = one;
    Operator& activation = add(OperatorKind::activation, base + ".activation", stage);
    activation.rows = rows;
    activation.dtype = outside;
    activation.shape.width = spec.width;
    activation.shape.gated = spec.gated ? 1 : 0;
    activation.shape.m = std::llround(row_sum(rows));
    activation.input_reuse = Bytes(0);
    activation.output_reuse = one;
    activation.activation_bytes = Bytes(row_sum(rows) * value(spec.width) * ((spec.gated ? 8 : 4) + element_));
    Operator& down = grouped_gemm(base + ".down", stage, rows, output_width(spec, hidden), spec.width);
    down.input_reuse = Bytes(0);
    if (reuse.scratch_output || hop + 1 < spec.depth) down.output_reuse = one;
  }
  dtype_ = outside;
  current_activations_ += row_sum(rows) * (value(hidden) * element_ + 4 * value(output_width(spec, hidden)));
}

void GraphBuilder::dense(const ExpertSpec& spec, const std::string& name, const std::string& stage) {
  ExpertSpec shard = spec;
  shard.width = divide(spec.width, deployment_.tp, name + " width", "tp");
  if (spec.kind == ExpertKind::identity) return;
  if (spec.kind != ExpertKind::ffn) {
    refuse(name, "networks that are neither feed-forward nor identity");
    return;
  }
  for (int hop = 0; hop < spec.depth; ++hop) {
    gemm(name + (spec.gated ? ".gate_up" : ".up"), stage, tokens_, shard.width * (spec.gated ? 2 : 1), hidden_,
         hop == 0 ? block_input() : GemmInput(Bytes(0)));
    Operator& activation = add(OperatorKind::activation, name + ".activation", stage);
    activation.shape.m = tokens_;
    activation.shape.width = shard.width;
    activation.shape.gated = spec.gated ? 1 : 0;
    activation.input_reuse = Bytes(0);
    activation.activation_bytes = Bytes(value(tokens_ * shard.width) * ((spec.gated ? 8 : 4) + element_));
    gemm(name + ".down", stage, tokens_, hidden_, shard.width, Bytes(0));
  }
}

void GraphBuilder::norm(const std::string& name, std::int64_t rows, std::int64_t width) {
  Operator& op = add(OperatorKind::norm, name, "norm");
  op.shape.m = rows;
  op.shape.hidden = width;
  op.activation_bytes = Bytes(value(rows * width) * (4 + element_));
  current_activations_ += op.activation_bytes.value();
}

void GraphBuilder::residual(const std::string& name, std::int64_t rows) {
  Operator& op = add(OperatorKind::elementwise, name, "residual");
  op.shape.m = rows;
  op.shape.width = hidden_;
  op.activation_bytes = Bytes(12 * value(rows * hidden_));
}

void GraphBuilder::collective(OperatorKind kind, std::string name, std::string stage, double bytes) {
  Operator& op = add(kind, std::move(name), std::move(stage));
  op.shape.bytes = std::llround(bytes);
  op.activation_bytes = Bytes(bytes);
}

void GraphBuilder::reduce(const std::string& name, const std::string& stage) {
  if (deployment_.tp == 1) return;
  collective(OperatorKind::all_reduce, name + ".all_reduce", stage, value(tokens_ * hidden_) * element_);
}

void GraphBuilder::refuse(const std::string& name, const std::string& what) {
  graph_.not_executed.push_back(name + ": " + what + " is not supported yet");
}

void GraphBuilder::layer(const Layer& layer, const std::string& name, double repeat, bool transformer) {
  repeat_ = repeat;
  normed_ = transformer;
  current_layer_ = current_activations_ = 0;
  const std::size_t begin = graph_.operators.size();
  for (const Block& block : layer.blocks) {
    block_ = blocks_++;
    if (transformer) {
      norm(name + ".norm", tokens_, hidden_);
      graph_.operators.back().reads_block_input = true;
    }
    if (const auto* a = std::get_if<AttentionBlock>(&block)) {
      attention(*a, name + ".attention");
    } else if (const auto* m = std::get_if<MoeBlock>(&block)) {
      moe(*m, name + ".moe");
    } else if (const auto* d = std::get_if<DenseFfnBlock>(&block)) {
      dense(d->ffn, name + ".ffn", "dense");
      reduce(name, "dense");
    } else if (const auto* s = std::get_if<StateSpaceBlock>(&block)) {
      state_space(*s, name + ".state_space");
    } else if (const auto* r = std::get_if<RecurrentBlock>(&block)) {
      recurrent(*r, name + ".recurrent");
    } else if (const auto* c = std::get_if<ConvolutionBlock>(&block)) {
      convolution(*c, name + ".convolution");
    } else if (const auto* o = std::get_if<OwnCostBlock>(&block)) {
      own_cost(*o, name + "." + o->name);
    }
    if (transformer) residual(name + ".residual", tokens_);
  }
  block_ = -1;
  graph_.layers.push_back({begin, graph_.operators.size(), repeat});
  stored_weights_ += current_layer_ * repeat;
  layer_weights_ = std::max(layer_weights_, current_layer_);
  layer_activations_ = std::max(layer_activations_, current_activations_);
}

void GraphBuilder::embedding() {
  repeat_ = 1;
  Operator& op = add(OperatorKind::embedding, "embedding", "embedding");
  op.shape.m = tokens_;
  op.shape.hidden = hidden_;
  op.activation_bytes = Bytes(value(tokens_ * hidden_) * (element_ + 4));
}

void GraphBuilder::head() {
  repeat_ = 1;
  current_layer_ = 0;
  std::int64_t rows = 0;
  const bool every = workload_.phase == Phase::train;  // a loss for every token
  for (const SequencePart& part : parts_) rows += part.batch * (every ? part.query : 1);
  norm("head.norm", rows, hidden_);
  gemm("head", "head", rows, divide(architecture_.vocabulary, deployment_.tp, "vocabulary", "tp"), hidden_, Bytes(0));
  stored_weights_ += current_layer_;
}

void GraphBuilder::loss() {
  const OperatorShape head = graph_.operators.back().shape;
  Operator& op = add(OperatorKind::elementwise, "loss", "head");
  op.shape.m = head.m;
  op.shape.width = head.n;
  op.input_reuse = Bytes(0);
  op.activation_bytes = Bytes(8 * value(head.m) * value(head.n));
}

void GraphBuilder::stage_transfers() {
  if (deployment_.pp == 1) return;
  repeat_ = deployment_.pp - 1;
  collective(OperatorKind::point_to_point, "stages.send", "pipeline", value(tokens_ * hidden_) * element_);
}

OperatorGraph GraphBuilder::finish() {
  const auto copies = static_cast<double>(workload_.copies);
  graph_.footprint = Bytes(copies * stored_weights_ + kv_bytes_ + layer_activations_);
  graph_.stored_weights = Bytes(copies * stored_weights_);
  graph_.layer_activations = Bytes(layer_activations_);
  graph_.layer_footprint = Bytes(layer_weights_ + layer_activations_);
  return std::move(graph_);
}

}  // namespace moecast
