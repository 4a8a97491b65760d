#pragma once
#include <cstdint>

#include "models/architecture/architecture.h"

// The own schema, once for reading and writing: describe(fields, Tag<T>()) hands every member of T with its name and
// range to `fields`. Members that hold a structure go through nested(), lists of structures through list().

namespace moecast::schema {

template <class T>
struct Tag {};

inline constexpr std::int64_t kMaxWidth = 1 << 20;    ///< widths of tensors, heads, ranks
inline constexpr std::int64_t kMaxCount = 1 << 16;    ///< ranks of a router, kernel sizes
inline constexpr std::int64_t kMaxExperts = 1 << 18;  ///< of a layer
inline constexpr std::int64_t kMaxTokens = 1 << 28;   ///< vocabularies, windows, contexts
inline constexpr double kMaxParameters = 1e16;

template <class F>
void describe(F& f, Tag<LatentSpec>) {
  f("q_rank", &LatentSpec::q_rank, 0, kMaxWidth);
  f("kv_rank", &LatentSpec::kv_rank, 0, kMaxWidth);
  f("nope_head_dim", &LatentSpec::nope_head_dim, 0, kMaxWidth);
  f("rope_head_dim", &LatentSpec::rope_head_dim, 0, kMaxWidth);
  f("value_head_dim", &LatentSpec::value_head_dim, 0, kMaxWidth);
}

template <class F>
void describe(F& f, Tag<IndexerSpec>) {
  f("heads", &IndexerSpec::heads, 0, kMaxWidth);
  f("head_dim", &IndexerSpec::head_dim, 0, kMaxWidth);
  f("top_tokens", &IndexerSpec::top_tokens, 0, kMaxTokens);
}

template <class F>
void describe(F& f, Tag<LinearAttentionSpec>) {
  f("key_heads", &LinearAttentionSpec::key_heads, 0, kMaxWidth);
  f("value_heads", &LinearAttentionSpec::value_heads, 0, kMaxWidth);
  f("key_head_dim", &LinearAttentionSpec::key_head_dim, 0, kMaxWidth);
  f("value_head_dim", &LinearAttentionSpec::value_head_dim, 0, kMaxWidth);
  f("conv_size", &LinearAttentionSpec::conv_size, 0, kMaxCount);
}

template <class F>
void describe(F& f, Tag<AttentionBlock>) {
  f("kind", &AttentionBlock::kind);
  f("heads", &AttentionBlock::heads, 0, kMaxWidth);
  f("kv_heads", &AttentionBlock::kv_heads, 0, kMaxWidth);
  f("head_dim", &AttentionBlock::head_dim, 0, kMaxWidth);
  f("value_head_dim", &AttentionBlock::value_head_dim, 0, kMaxWidth);
  f("window", &AttentionBlock::window, 0, kMaxTokens);
  f("bias_qkv", &AttentionBlock::bias_qkv);
  f("bias_out", &AttentionBlock::bias_out);
  f("qk_norm", &AttentionBlock::qk_norm);
  f("output_gate", &AttentionBlock::output_gate);
  f("causal", &AttentionBlock::causal);
  f("shared_kv", &AttentionBlock::shared_kv);
  f("q_rank", &AttentionBlock::q_rank, 0, kMaxWidth);
  f("out_rank", &AttentionBlock::out_rank, 0, kMaxWidth);
  f("out_groups", &AttentionBlock::out_groups, 1, kMaxCount);
  f("source_layers", &AttentionBlock::source_layers, 1, 64);
  f("kv_compression", &AttentionBlock::kv_compression, 1, kMaxCount);
  f.nested("latent", &AttentionBlock::latent);
  f.nested("indexer", &AttentionBlock::indexer);
  f.nested("linear", &AttentionBlock::linear);
}

template <class F>
void describe(F& f, Tag<ExpertSpec>) {
  f("kind", &ExpertSpec::kind);
  f("width", &ExpertSpec::width, 0, kMaxWidth);
  f("depth", &ExpertSpec::depth, 1, 1024);
  f("gated", &ExpertSpec::gated);
  f("bias", &ExpertSpec::bias);
  f("activation", &ExpertSpec::activation);
  f("heads", &ExpertSpec::heads, 0, kMaxWidth);
  f("head_dim", &ExpertSpec::head_dim, 0, kMaxWidth);
  f("kernel_size", &ExpertSpec::kernel_size, 0, kMaxCount);
  f("output", &ExpertSpec::output, 0, kMaxWidth);
}

template <class F>
void describe(F& f, Tag<ExpertGroup>) {
  f("count", &ExpertGroup::count, 0, kMaxExperts);
  f.nested("expert", &ExpertGroup::expert);
  f("modality", &ExpertGroup::modality);
}

template <class F>
void describe(F& f, Tag<OwnCostBlock>) {
  f("name", &OwnCostBlock::name);
  f("parameters", &OwnCostBlock::parameters, 0.0, kMaxParameters);
  f("flops_per_token", &OwnCostBlock::flops_per_token, 0.0, kMaxParameters);
  f("bytes_per_token", &OwnCostBlock::bytes_per_token, 0.0, kMaxParameters);
}

template <class F>
void describe(F& f, Tag<RouterSpec>) {
  f("kind", &RouterSpec::kind);
  f("network", &RouterSpec::network);
  f("mlp_widths", &RouterSpec::mlp_widths, 1, kMaxWidth);
  f.nested("attention", &RouterSpec::attention);
  f.nested("own_cost", &RouterSpec::own_cost);
  f("top_k", &RouterSpec::top_k, 1, kMaxCount);
  f("top_k_distribution", &RouterSpec::top_k_distribution, 0.0, 1.0);
  f("score", &RouterSpec::score);
  f("order", &RouterSpec::order);
  f("renormalise", &RouterSpec::renormalise);
  f("scale", &RouterSpec::scale, -1e6, 1e6);
  f("selection_bias", &RouterSpec::selection_bias);
  f("linear_bias", &RouterSpec::linear_bias);
  f("groups", &RouterSpec::groups, 1, kMaxCount);
  f("top_groups", &RouterSpec::top_groups, 1, kMaxCount);
  f("noise", &RouterSpec::noise);
  f("noise_strength", &RouterSpec::noise_strength, 0.0, 1e6);
  f("granularity", &RouterSpec::granularity);
  f("segment_length", &RouterSpec::segment_length, 1, kMaxTokens);
  f("coarse_experts", &RouterSpec::coarse_experts, 0, kMaxCount);
  f("coarse_top_k", &RouterSpec::coarse_top_k, 0, kMaxCount);
}

template <class F>
void describe(F& f, Tag<CapacitySpec>) {
  f("train_factor", &CapacitySpec::train_factor, 1e-6, 1e6);
  f("eval_factor", &CapacitySpec::eval_factor, 1e-6, 1e6);
  f("absolute", &CapacitySpec::absolute, 0, kMaxTokens);
  f("minimum", &CapacitySpec::minimum, 0, kMaxTokens);
  f("factor_of_top_k", &CapacitySpec::factor_of_top_k);
  f("pad", &CapacitySpec::pad);
  f("overflow", &CapacitySpec::overflow);
  f("rounding", &CapacitySpec::rounding);
}

template <class F>
void describe(F& f, Tag<SharedExperts>) {
  f("count", &SharedExperts::count, 0, kMaxCount);
  f.nested("expert", &SharedExperts::expert);
  f("gate", &SharedExperts::gate);
}

template <class F>
void describe(F& f, Tag<MoeBlock>) {
  f.list("experts", &MoeBlock::experts);
  f.nested("router", &MoeBlock::router);
  f.nested("capacity", &MoeBlock::capacity);
  f.nested("shared", &MoeBlock::shared);
  f.nested("dense_residual", &MoeBlock::dense_residual);
  f("latent_width", &MoeBlock::latent_width, 0, kMaxWidth);
  f("zero_experts", &MoeBlock::zero_experts, 0, kMaxCount);
  f("sub_token_heads", &MoeBlock::sub_token_heads, 1, kMaxCount);
}

}  // namespace moecast::schema
