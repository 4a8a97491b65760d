#include "models/architecture/accounting.h"

#include <algorithm>
#include <cmath>

#include "models/core/count.h"

namespace moecast {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};

/// Projections of an attention block: in, out and what lies between.
/// @param source  width of the tokens that become keys and values of cross attention.
double attention_parameters(const AttentionBlock& a, double hidden, double source) {
  const double heads = value(a.heads);
  const double size = value(a.head_dim);
  const double value_size = a.value_head_dim > 0 ? value(a.value_head_dim) : size;
  double count = 0;
  if (a.latent) {
    const LatentSpec& l = *a.latent;
    const double query = heads * value(l.nope_head_dim + l.rope_head_dim);
    count += l.q_rank > 0 ? hidden * value(l.q_rank) + value(l.q_rank) * query + value(l.q_rank) : hidden * query;
    count += hidden * value(l.kv_rank + l.rope_head_dim) + value(l.kv_rank);
    count += value(l.kv_rank) * heads * value(l.nope_head_dim + l.value_head_dim);
    count += heads * value(l.value_head_dim) * hidden;
    if (a.output_gate) count += hidden * heads * value(l.value_head_dim);
  } else if (a.linear) {
    const LinearAttentionSpec& l = *a.linear;
    const double keys = value(l.key_heads * l.key_head_dim);
    const double values = value(l.value_heads * l.value_head_dim);
    // q, k, v, an output gate as wide as v, the output; the norm of a head.
    count += hidden * (2 * keys + 2 * values) + values * hidden + value(l.value_head_dim);
    // Decay and beta of every value head; Kimi's decay is of every key, through a head-wide bottleneck.
    if (a.kind == AttentionKind::gated_delta_net) count += (hidden + 1) * 2 * value(l.value_heads);
    if (a.kind == AttentionKind::kimi_delta) {
      count += value(l.key_head_dim) * (hidden + keys) + keys + (hidden + 1) * value(l.value_heads);
    }
    count += value(l.conv_size) * (2 * keys + values);  // depthwise
  } else {
    const double cached = value(a.kv_heads) * (size + (a.shared_kv ? 0 : value_size));
    const double qkv = heads * size + cached;
    const double query = heads * size;
    count += (a.kind == AttentionKind::cross ? source : hidden) * cached +
             (a.q_rank > 0 ? value(a.q_rank) * (hidden + query) : hidden * query);
    const double out = heads * value_size;
    const double ranks = value(a.out_groups * a.out_rank);  // every group of heads has a projection of its own
    count += a.out_rank > 0 ? out * value(a.out_rank) + ranks * hidden : out * hidden;
    if (a.bias_qkv) count += qkv;
    if (a.bias_out) count += hidden;
    if (a.qk_norm) count += 2 * size;
    if (a.output_gate) count += hidden * heads * value_size;
  }
  if (a.indexer) {
    const double index = value(a.indexer->heads * a.indexer->head_dim);
    const std::int64_t rank = a.latent ? a.latent->q_rank : a.q_rank;
    const double from = rank > 0 ? value(rank) : hidden;
    count += from * index + hidden * value(a.indexer->head_dim) + hidden * value(a.indexer->heads);
  }
  return count;
}

double state_space_parameters(const StateSpaceBlock& s, double hidden) {
  const double inner = value(s.inner_width);
  const double state = value(s.state_size);
  if (s.version == 1) {
    return hidden * 2 * inner + inner * value(s.conv_size) + inner + inner * (value(s.dt_rank) + 2 * state) +
           value(s.dt_rank) * inner + inner + inner * state + inner + inner * hidden;
  }
  const double convolved = inner + 2 * value(s.groups) * state;
  return hidden * (2 * inner + 2 * value(s.groups) * state + value(s.heads)) + convolved * value(s.conv_size) +
         convolved + 3 * value(s.heads) + inner + inner * hidden;
}

ParameterCount moe_parameters(const MoeBlock& moe, std::int64_t hidden) {
  const std::int64_t width = moe.latent_width > 0 ? moe.latent_width : hidden / std::max(1, moe.sub_token_heads);
  const std::int64_t choices = moe.expert_count() + moe.zero_experts;
  ParameterCount count;
  for (const ExpertGroup& group : moe.experts) {
    count.routed_experts += value(group.count) * expert_parameters(group.expert, width);
  }
  // A token uses k of the choices; experts that differ count with their mean, zero experts with nothing. Where experts
  // are of a modality, the token is of the first one.
  std::int64_t eligible = moe.zero_experts;
  double eligible_parameters = 0;
  for (const ExpertGroup& group : moe.experts) {
    if (!group.modality.empty() && group.modality != moe.experts.front().modality) continue;
    eligible += group.count;
    eligible_parameters += value(group.count) * expert_parameters(group.expert, width);
  }
  const double used = eligible > 0 ? std::min(1.0, mean_top_k(moe.router) / value(eligible)) : 0;
  // The router sees what is routed: a sub-token where tokens are split. Of a hierarchical one a token passes the
  // routers of the coarse experts that it chose.
  const std::int64_t routed = hidden / std::max(1, moe.sub_token_heads);
  const std::int64_t coarse = moe.router.coarse_experts;
  const std::int64_t scored = coarse > 0 ? choices / coarse * moe.router.coarse_top_k : choices;
  const double router = router_parameters(moe.router, choices, routed);
  double always = value(moe.shared.count) * expert_parameters(moe.shared.expert, hidden);
  if (moe.shared.gate) always += value(hidden);
  if (moe.dense_residual) always += expert_parameters(*moe.dense_residual, hidden);
  if (moe.latent_width > 0) always += 2 * value(hidden) * value(moe.latent_width);
  if (moe.sub_token_heads > 1) always += 2 * value(hidden) * value(hidden);
  count.total = count.routed_experts + router + always;
  count.active = eligible_parameters * used + router_parameters(moe.router, scored, routed) + always;
  return count;
}

}  // namespace

ParameterCount& ParameterCount::operator+=(const ParameterCount& other) {
  total += other.total;
  active += other.active;
  routed_experts += other.routed_experts;
  return *this;
}

double visible_keys(const AttentionBlock& block, double fresh, double context) {
  const double all = fresh * context + (block.causal ? fresh * (fresh + 1) / 2 : fresh * fresh);
  // Rows that do not fill the limit yet see what there is.
  const auto at_most = [&](std::int64_t keys) {
    const double limit = value(keys);
    if (!block.causal) return std::min(all, fresh * limit);
    const double filling = std::clamp(limit - context, 0.0, fresh);
    return filling * context + filling * (filling + 1) / 2 + (fresh - filling) * limit;
  };
  const std::int64_t chosen = block.indexer ? block.indexer->top_tokens : 0;
  if (block.kv_compression > 1) {
    const double far = all / value(block.kv_compression);
    return (chosen > 0 ? std::min(far, fresh * value(chosen)) : far) + at_most(block.window);
  }
  if (chosen > 0) return at_most(chosen);
  if (block.window <= 0) return all;
  const double window = value(block.window);
  if (block.kind == AttentionKind::chunked && block.causal) {
    // A token sees its own chunk up to itself.
    const auto up_to = [window](double tokens) {
      const double rest = std::fmod(tokens, window);
      return (tokens - rest) * (window + 1) / 2 + rest * (rest + 1) / 2;
    };
    return up_to(context + fresh) - up_to(context);
  }
  return at_most(block.window);
}

double mean_top_k(const RouterSpec& router) {
  if (router.top_k_distribution.empty()) return router.top_k;
  double mean = 0;
  for (std::size_t i = 0; i < router.top_k_distribution.size(); ++i) {
    mean += static_cast<double>(i + 1) * router.top_k_distribution[i];
  }
  return mean;
}

double expert_parameters(const ExpertSpec& e, std::int64_t hidden) {
  const double h = value(hidden);
  const double w = value(e.width);
  double one = 0;
  switch (e.kind) {
    case ExpertKind::identity: return 0;
    case ExpertKind::recurrent: one = 4 * (h * w + w * w + w) + w * h; break;
    case ExpertKind::convolution: one = 2 * h * w * value(std::max<std::int64_t>(1, e.kernel_size)); break;
    case ExpertKind::transformer: one = 4 * h * value(e.heads * e.head_dim); [[fallthrough]];
    case ExpertKind::ffn: {
      const double out = e.output > 0 ? value(e.output) : h;
      one += (e.gated ? 2 : 1) * h * w + w * out;
      if (e.bias) one += (e.gated ? 2 : 1) * w + out;
    }
  }
  return one * e.depth;
}

double router_parameters(const RouterSpec& router, std::int64_t experts, std::int64_t hidden) {
  const double bias = (router.linear_bias ? value(experts) : 0) + (router.selection_bias ? value(experts) : 0);
  if (router.kind == RouterKind::hash || router.network == RouterNetwork::none) return 0;
  double from = value(hidden);
  double count = bias;
  if (router.own_cost) return bias + router.own_cost->parameters;
  if (router.attention) count += attention_parameters(*router.attention, from, from);
  for (const std::int64_t width : router.mlp_widths) {
    count += from * value(width) + (router.linear_bias ? value(width) : 0);
    from = value(width);
  }
  return count + from * value(experts + router.coarse_experts);
}

ParameterCount block_parameters(const Block& block, std::int64_t hidden, std::int64_t source_hidden) {
  const double h = value(hidden);
  const double source = source_hidden > 0 ? value(source_hidden) : h;
  const auto dense = [](double count) { return ParameterCount{count, count, 0}; };
  return std::visit(Overloaded{[&](const AttentionBlock& b) { return dense(attention_parameters(b, h, source)); },
                               [&](const MoeBlock& b) { return moe_parameters(b, hidden); },
                               [&](const DenseFfnBlock& b) { return dense(expert_parameters(b.ffn, hidden)); },
                               [&](const StateSpaceBlock& b) { return dense(state_space_parameters(b, h)); },
                               [&](const RecurrentBlock& b) {
                                 const double out = b.projection > 0 ? value(b.projection) : value(b.width);
                                 return dense(b.gates * (h * value(b.width) + out * value(b.width) + value(b.width)) +
                                              (b.projection > 0 ? value(b.width) * out : 0));
                               },
                               [&](const ConvolutionBlock& b) {
                                 return dense(value(b.in_channels) * value(b.out_channels) * value(b.kernel_height) *
                                              value(b.kernel_width) / value(b.groups));
                               },
                               [&](const OwnCostBlock& b) { return dense(b.parameters); }},
                    block);
}

ParameterCount count_parameters(const Architecture& architecture) {
  ParameterCount count;
  const std::int64_t source = stack_hidden(architecture, true);
  for (const auto* stack : {&architecture.encoder, &architecture.decoder}) {
    const std::int64_t hidden = stack_hidden(architecture, stack == &architecture.encoder);
    const double h = value(hidden);
    for (const Layer& layer : *stack) {
      for (const Block& block : layer.blocks) {
        count += block_parameters(block, hidden, source);
        count += {h, h, 0};  // its norm
      }
    }
    if (!stack->empty()) count += {h, h, 0};  // the final norm
  }
  // One table for both stacks where they are equally wide.
  double widths = value(architecture.hidden) * (architecture.tied_embeddings ? 1 : 2);
  if (!architecture.encoder.empty() && source != architecture.hidden) widths += value(source);
  const double embedding = value(architecture.vocabulary) * widths;
  const double other = architecture.other_parameters + architecture.position_embedding_parameters;
  count += {embedding + other, embedding + other, 0};
  return count;
}

Flops expert_flops(const ExpertSpec& expert, std::int64_t hidden, double rows) {
  ExpertSpec bare = expert;
  bare.bias = false;
  return Flops(2 * expert_parameters(bare, hidden) * rows);
}

Flops router_flops(const RouterSpec& router, std::int64_t experts, std::int64_t hidden, double tokens) {
  RouterSpec bare = router;
  bare.linear_bias = bare.selection_bias = false;
  if (router.own_cost) return Flops(router.own_cost->flops_per_token * tokens);
  return Flops(2 * router_parameters(bare, experts, hidden) * tokens);
}

Flops attention_flops(const AttentionBlock& block, std::int64_t hidden, double tokens, double visible) {
  AttentionBlock bare = block;
  bare.bias_qkv = bare.bias_out = bare.qk_norm = false;
  double flops = 2 * attention_parameters(bare, value(hidden), value(hidden)) * tokens;
  if (block.linear) {
    // The state of every value head is decayed, updated by an outer product and read: 3 multiply-adds an element.
    const LinearAttentionSpec& l = *block.linear;
    return Flops(flops + 6 * tokens * value(l.value_heads * l.key_head_dim * l.value_head_dim));
  }
  double per_key =
      2 * value(block.head_dim) + 2 * value(block.value_head_dim > 0 ? block.value_head_dim : block.head_dim);
  if (block.latent) {
    per_key = 2 * value(block.latent->nope_head_dim + block.latent->rope_head_dim + block.latent->value_head_dim);
  }
  return Flops(flops + visible * value(block.heads) * per_key);
}

namespace {

/// Cross attention: queries and results have the decoder's width, keys and values are projected from `source` encoded
/// tokens of the encoder's width, all of which every new token sees.
double cross_attention_flops(const AttentionBlock& block, double hidden, double source_hidden, double tokens,
                             double source, double sequences) {
  AttentionBlock bare = block;
  bare.bias_qkv = bare.bias_out = bare.qk_norm = false;
  const double all = attention_parameters(bare, hidden, source_hidden);
  const double keys = all - attention_parameters(bare, hidden, 0);
  const double value_size = value(block.value_head_dim > 0 ? block.value_head_dim : block.head_dim);
  const double seen = source * value(block.source_layers);
  return 2 * ((all - keys) * tokens + keys * sequences * seen) +
         2 * tokens * seen * value(block.heads) * (value(block.head_dim) + value_size);
}

}  // namespace

Flops step_flops(const Architecture& architecture, double sequences, double new_tokens, double context) {
  const double tokens = sequences * new_tokens;
  std::int64_t hidden = architecture.hidden;
  double flops = 0;
  const auto add = Overloaded{
      [&](const AttentionBlock& b) {
        if (b.kind == AttentionKind::cross) {  // of as many tokens as the encoder has new ones
          flops += cross_attention_flops(b, value(hidden), value(stack_hidden(architecture, true)), tokens, new_tokens,
                                         sequences);
          return;
        }
        flops += attention_flops(b, hidden, tokens, sequences * visible_keys(b, new_tokens, context)).value();
      },
      [&](const MoeBlock& b) {
        flops += 2 * tokens * moe_parameters(b, hidden).active;
        const RouterSpec& r = b.router;
        if (r.own_cost) flops += tokens * (r.own_cost->flops_per_token - 2 * r.own_cost->parameters);
        if (r.attention) {
          flops += attention_flops(*r.attention, hidden, 0, sequences * visible_keys(*r.attention, new_tokens, context))
                       .value();
        }
      },
      [&](const DenseFfnBlock& b) { flops += expert_flops(b.ffn, hidden, tokens).value(); },
      [&](const OwnCostBlock& b) { flops += b.flops_per_token * tokens; },
      [&](const auto& b) { flops += 2 * tokens * block_parameters(b, hidden).total; }};
  for (const auto* stack : {&architecture.encoder, &architecture.decoder}) {
    hidden = stack_hidden(architecture, stack == &architecture.encoder);
    for (const Layer& layer : *stack) {
      for (const Block& block : layer.blocks) std::visit(add, block);
    }
  }
  return Flops(flops);
}

std::int64_t kept_tokens(const AttentionBlock& block, std::int64_t context) {
  if (block.kv_compression > 1) return std::min(context, block.window) + context / block.kv_compression;
  return block.window > 0 ? std::min(context, block.window) : context;
}

Bytes kv_bytes_per_token(const AttentionBlock& block, DType dtype) {
  const double element = bytes_per_element(dtype);
  if (block.linear) return Bytes(0);
  const std::int64_t value_size = block.value_head_dim > 0 ? block.value_head_dim : block.head_dim;
  double elements = value(block.kv_heads) * value(block.head_dim + (block.shared_kv ? 0 : value_size));
  if (block.latent) elements = value(block.latent->kv_rank + block.latent->rope_head_dim);
  if (block.indexer) elements += value(block.indexer->head_dim);
  return Bytes(elements * element);
}

Bytes state_bytes_per_sequence(const Block& block, DType dtype) {
  const double element = bytes_per_element(dtype);
  if (const auto* a = std::get_if<AttentionBlock>(&block); a != nullptr && a->linear) {
    const LinearAttentionSpec& l = *a->linear;
    // The recurrent state is kept in fp32; the convolution keeps its last inputs.
    return Bytes(4 * value(l.value_heads * l.key_head_dim * l.value_head_dim) +
                 element * value(std::max<std::int64_t>(0, l.conv_size - 1) *
                                 (2 * l.key_heads * l.key_head_dim + l.value_heads * l.value_head_dim)));
  }
  if (const auto* s = std::get_if<StateSpaceBlock>(&block)) {
    return Bytes(4 * value(s->inner_width * s->state_size) +
                 element * value(std::max<std::int64_t>(0, s->conv_size - 1) * s->inner_width));
  }
  if (const auto* r = std::get_if<RecurrentBlock>(&block)) return Bytes(2 * element * value(r->width));
  return Bytes(0);
}

}  // namespace moecast
