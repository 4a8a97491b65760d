#include <algorithm>
#include <cmath>

#include "models/architecture/accounting.h"
#include "models/core/count.h"
#include "models/plan/graph_builder.h"

namespace moecast {
namespace {

/// What causal attention over `read` keys, the new tokens' own the last of them, sees.
double causal_keys(std::int64_t query, std::int64_t read) {
  return value(query) * value(read) - value(query) * value(query - 1) / 2;
}

/// Distinct rows of the cache that a sequence's new tokens read.
std::int64_t rows_read(const AttentionBlock& block, const SequencePart& part) {
  const std::int64_t all = part.context + part.query;
  const std::int64_t chosen = block.indexer ? part.query * block.indexer->top_tokens : 0;
  if (block.kv_compression > 1) {
    const std::int64_t far = all / block.kv_compression;
    return std::max<std::int64_t>(1, std::min(all, block.window) + (chosen > 0 ? std::min(far, chosen) : far));
  }
  if (chosen > 0) return std::min(all, chosen);
  return block.window > 0 ? std::min(all, block.window + part.query - 1) : all;
}

}  // namespace

void GraphBuilder::attention(const AttentionBlock& block, const std::string& name) {
  if (block.linear) {
    linear(block, name);
  } else if (block.latent) {
    latent(block, name);
  } else if (block.kind == AttentionKind::cross) {
    cross(block, name);
  } else {
    grouped_query(block, name);
  }
  reduce(name, "attention");
}

void GraphBuilder::attention_core(const AttentionBlock& block, const std::string& name, const SequencePart& part,
                                  std::int64_t heads, std::int64_t kv_heads, std::int64_t key_dim,
                                  std::int64_t value_dim, double visible, std::int64_t read) {
  Operator& op = add(part.decode ? OperatorKind::attention_decode : OperatorKind::attention_prefill, name, "attention");
  op.shape.batch = part.batch;
  op.shape.query = part.query;
  op.shape.context = read;
  op.shape.heads = heads;
  op.shape.kv_heads = kv_heads;
  op.shape.head_dim = (key_dim + value_dim + 1) / 2;
  const bool plain = !block.latent && key_dim == value_dim && visible == causal_keys(part.query, read);
  if (!plain) op.shape.visible = std::max<std::int64_t>(1, std::llround(visible));
  const bool one_row = block.shared_kv || (block.latent && kv_heads == 1);  // values are part of the keys' row
  const double row = value(kv_heads) * value(key_dim + (one_row ? 0 : value_dim));
  const double kv = value(part.batch * read) * row * element_;
  op.activation_bytes =
      Bytes(kv + value(part.batch * part.query * heads) * (value(key_dim) * element_ + 4.0 * value(value_dim)));
  op.flops = Flops(2 * value(part.batch) * visible * value(heads) * value(key_dim + value_dim));
  // Scores again, then the gradients of queries and keys (each over key_dim) and of weights and values (value_dim).
  op.backward_flops = Flops(2 * value(part.batch) * visible * value(heads) * value(3 * key_dim + 2 * value_dim));
  kv_bytes_ += kv * repeat_;
}

void GraphBuilder::rotary(const std::string& name, std::int64_t columns) {
  Operator& op = add(OperatorKind::elementwise, name + ".rotary", "attention");
  op.shape.m = tokens_;
  op.shape.width = columns;
  op.input_reuse = Bytes(0);
  op.activation_bytes = Bytes(12 * value(tokens_ * columns));
}

void GraphBuilder::query_projection(std::int64_t rank, std::int64_t columns, const std::string& name) {
  if (rank > 0) {
    gemm(name + ".q_down", "attention", tokens_, rank, hidden_, block_input());
    norm(name + ".q_norm", tokens_, rank);
    gemm(name + ".q_up", "attention", tokens_, columns, rank, Bytes(0));
  } else {
    gemm(name + ".q", "attention", tokens_, columns, hidden_, block_input());
  }
}

void GraphBuilder::grouped_query(const AttentionBlock& block, const std::string& name) {
  const std::int64_t heads = divide(block.heads, deployment_.tp, "heads", "tp");
  const std::int64_t kv_heads = std::max<std::int64_t>(1, block.kv_heads / deployment_.tp);
  const std::int64_t size = block.head_dim;
  const std::int64_t value_size = block.value_head_dim > 0 ? block.value_head_dim : size;
  const std::int64_t queries = heads * (block.output_gate ? 2 : 1) * size;
  const std::int64_t cached = kv_heads * (size + (block.shared_kv ? 0 : value_size));
  if (block.q_rank > 0) {
    query_projection(block.q_rank, queries, name);
    gemm(name + ".kv", "attention", tokens_, cached, hidden_, std::nullopt);
  } else {
    gemm(name + ".qkv", "attention", tokens_, queries + cached, hidden_, block_input());
  }
  rotary(name, (heads + kv_heads) * size);
  if (block.indexer) indexer(block, name);
  for (const SequencePart& part : parts_) {
    attention_core(block, name + ".core", part, heads, kv_heads, size, value_size,
                   visible_keys(block, value(part.query), value(part.context)), rows_read(block, part));
  }
  if (block.out_rank > 0) {
    const std::int64_t groups = divide(block.out_groups, deployment_.tp, "output groups", "tp");
    grouped_gemm(name + ".out_down", "attention", {{value(tokens_), value(groups)}}, block.out_rank,
                 heads * value_size / groups);
    gemm(name + ".out_up", "attention", tokens_, hidden_, groups * block.out_rank, Bytes(0));
  } else {
    gemm(name + ".out", "attention", tokens_, hidden_, heads * value_size, Bytes(0));
  }
}

void GraphBuilder::cross(const AttentionBlock& block, const std::string& name) {
  const std::int64_t heads = divide(block.heads, deployment_.tp, "heads", "tp");
  const std::int64_t kv_heads = std::max<std::int64_t>(1, block.kv_heads / deployment_.tp);
  const std::int64_t size = block.head_dim;
  const std::int64_t value_size = block.value_head_dim > 0 ? block.value_head_dim : size;
  query_projection(block.q_rank, heads * size, name);
  std::int64_t encoded = 0;
  for (const SequencePart& part : parts_) encoded += part.encodes ? part.batch * part.source * block.source_layers : 0;
  if (encoded > 0) {
    gemm(name + ".kv", "attention", encoded, kv_heads * (size + value_size), stack_hidden(architecture_, true),
         std::nullopt);
  }
  for (const SequencePart& part : parts_) {
    attention_core(block, name + ".core", part, heads, kv_heads, size, value_size,
                   value(part.query) * value(part.source * block.source_layers), part.source * block.source_layers);
  }
  gemm(name + ".out", "attention", tokens_, hidden_, heads * value_size, Bytes(0));
}

/// Multi-head latent attention. Prefill expands the cached rows to keys and values of every head; decode keeps them and
/// moves the expansion into the query and the result instead (absorbed form).
void GraphBuilder::latent(const AttentionBlock& block, const std::string& name) {
  const LatentSpec& l = *block.latent;
  const std::int64_t heads = divide(block.heads, deployment_.tp, "heads", "tp");
  const std::int64_t row = l.kv_rank + l.rope_head_dim;
  query_projection(l.q_rank, heads * (l.nope_head_dim + l.rope_head_dim), name);
  gemm(name + ".kv_down", "attention", tokens_, row, hidden_, std::nullopt);
  norm(name + ".kv_norm", tokens_, l.kv_rank);
  rotary(name, (heads + 1) * l.rope_head_dim);
  if (block.indexer) indexer(block, name);
  const double before = current_layer_;
  double stored = 0;
  for (const SequencePart& part : parts_) {
    current_layer_ = before;  // both forms read the same matrices
    const double visible = visible_keys(block, value(part.query), value(part.context));
    const std::int64_t read = rows_read(block, part);
    if (part.decode) {
      const std::vector<RowGroup> rows{{value(part.batch * part.query), value(heads)}};
      grouped_gemm(name + ".q_absorb", "attention", rows, l.kv_rank, l.nope_head_dim);
      attention_core(block, name + ".core", part, heads, 1, row, l.kv_rank, visible, read);
      grouped_gemm(name + ".v_up", "attention", rows, l.value_head_dim, l.kv_rank);
    } else {
      gemm(name + ".kv_up", "attention", part.batch * (part.query + part.context),
           heads * (l.nope_head_dim + l.value_head_dim), l.kv_rank, Bytes(0));
      attention_core(block, name + ".core", part, heads, heads, l.nope_head_dim + l.rope_head_dim, l.value_head_dim,
                     visible, read);
    }
    stored = std::max(stored, current_layer_);
  }
  current_layer_ = stored;
  if (block.output_gate) {
    gemm(name + ".gate", "attention", tokens_, heads * l.value_head_dim, hidden_, std::nullopt);
  }
  gemm(name + ".out", "attention", tokens_, hidden_, heads * l.value_head_dim, Bytes(0));
}

/// Sparse attention: cheap heads score all keys, the best are attended to.
void GraphBuilder::indexer(const AttentionBlock& block, const std::string& name) {
  const IndexerSpec& index = *block.indexer;
  const std::int64_t rank = block.latent ? block.latent->q_rank : block.q_rank;
  const std::string base = name + ".indexer";
  gemm(base + ".q", "attention", tokens_, index.heads * index.head_dim, rank > 0 ? rank : hidden_, Bytes(0));
  gemm(base + ".k", "attention", tokens_, index.head_dim + index.heads, hidden_, std::nullopt);
  AttentionBlock all;
  all.causal = block.causal;
  for (const SequencePart& part : parts_) {
    const double visible = visible_keys(all, value(part.query), value(part.context));
    const std::int64_t keys = part.context + part.query;
    Operator& scores = add(part.decode ? OperatorKind::attention_decode : OperatorKind::attention_prefill,
                           base + ".scores", "attention");
    scores.shape = {};
    scores.shape.batch = part.batch;
    scores.shape.query = part.query;
    scores.shape.context = keys;
    scores.shape.visible = std::llround(visible);
    scores.shape.heads = index.heads;
    scores.shape.kv_heads = 1;
    scores.shape.head_dim = std::max<std::int64_t>(1, index.head_dim / 2);  // keys alone: half of what attention does
    scores.activation_bytes =
        Bytes(value(part.batch * keys * index.head_dim) * element_ + 4 * value(part.batch) * visible);
    scores.flops = Flops(2 * value(part.batch) * visible * value(index.heads * index.head_dim));
    kv_bytes_ += value(part.batch * keys * index.head_dim) * element_ * repeat_;
    Operator& choice = add(OperatorKind::elementwise, base + ".choice", "attention");
    choice.shape.m = part.batch * part.query;
    choice.shape.width = std::max<std::int64_t>(1, std::llround(visible / value(part.query)));
    choice.input_reuse = Bytes(0);
    choice.activation_bytes = Bytes(4 * value(part.batch) * visible);
  }
}

/// Delta nets and lightning attention: a state of constant size instead of a cache.
void GraphBuilder::linear(const AttentionBlock& block, const std::string& name) {
  const LinearAttentionSpec& l = *block.linear;
  const std::int64_t key_heads = divide(l.key_heads, deployment_.tp, "key heads", "tp");
  const std::int64_t value_heads = divide(l.value_heads, deployment_.tp, "value heads", "tp");
  const std::int64_t keys = key_heads * l.key_head_dim;
  const std::int64_t values = value_heads * l.value_head_dim;
  std::int64_t columns = 2 * keys + 2 * values;
  if (block.kind == AttentionKind::gated_delta_net) columns += 2 * value_heads;
  if (block.kind == AttentionKind::kimi_delta) columns += l.key_head_dim + value_heads;
  gemm(name + ".in", "attention", tokens_, columns, hidden_, block_input());
  if (block.kind == AttentionKind::kimi_delta) {
    gemm(name + ".decay", "attention", tokens_, keys, l.key_head_dim, Bytes(0));
  }
  if (l.conv_size > 0) depthwise(name + ".conv", 2 * keys + values, l.conv_size);
  state_update(name + ".state", value_heads, l.key_head_dim, l.value_head_dim);
  gemm(name + ".out", "attention", tokens_, hidden_, values, Bytes(0));
}

}  // namespace moecast
