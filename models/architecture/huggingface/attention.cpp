#include "models/architecture/huggingface/attention.h"

#include <algorithm>

#include "models/architecture/huggingface/placement.h"
#include "models/core/error.h"

namespace moecast::huggingface {
namespace {

std::int64_t head_count(Config& config) {
  return config.need_int({"num_attention_heads", "n_heads", "n_head", "num_heads", "decoder_attention_heads"}, 1,
                         1 << 16);
}

/// Written in the configuration; only where it is absent, hidden / heads.
std::int64_t head_width(Config& config, std::int64_t hidden, std::int64_t heads) {
  if (const auto size = config.find_int({"head_dim", "attention_head_dim", "d_kv", "kv_channels"}, 1, 1 << 16)) {
    return *size;
  }
  if (hidden % heads == 0) return hidden / heads;
  throw InputError(config.where(), "\"head_dim\" is missing",
                   std::to_string(heads) + " heads do not divide " + std::to_string(hidden) + " columns");
}

void add_common(Config& config, const Family& family, AttentionBlock& block) {
  block.bias_qkv =
      config.find_bool({"attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias"}).value_or(family.bias_qkv);
  block.bias_out = block.bias_qkv && family.bias_out;
  block.qk_norm = config.find_bool({"use_qk_norm", "qk_layernorm", "qk_norm"}).value_or(family.qk_norm);
  block.output_gate = config.find_bool({"attn_output_gate", "attention_output_gate", "mla_use_output_gate"})
                          .value_or(family.output_gate);
}

std::optional<IndexerSpec> indexer_of(Config& config) {
  if (const auto heads = config.find_int({"index_n_heads"}, 1, 1 << 16)) {
    return IndexerSpec{*heads, config.need_int({"index_head_dim"}, 1, 1 << 16), config.need_int({"index_topk"})};
  }
  if (!config.find_bool({"sparse_attention_config.use_sparse_attention"}).value_or(false)) return std::nullopt;
  return IndexerSpec{config.need_int({"sparse_attention_config.sparse_num_index_heads"}, 1, 1 << 16),
                     config.need_int({"sparse_attention_config.sparse_index_dim"}, 1, 1 << 16),
                     config.need_int({"sparse_attention_config.sparse_topk_blocks"}, 1, 1 << 20) *
                         config.need_int({"sparse_attention_config.sparse_block_size"}, 1, 1 << 20)};
}

/// Compressed keys and values in one shared head, low-rank queries and grouped low-rank outputs (DeepSeek-V4).
AttentionBlock compressed(Config& config, AttentionBlock block, std::size_t layer) {
  block.shared_kv = true;
  block.q_rank = config.find_int({"q_lora_rank"}, 0, 1 << 20).value_or(0);
  block.out_rank = config.find_int({"o_lora_rank"}, 0, 1 << 20).value_or(0);
  block.out_groups = config.find_int({"o_groups"}, 1, 1 << 16).value_or(1);
  block.window = config.find_int({"sliding_window"}).value_or(0);
  const auto ratios = config.find_ints({"compress_ratios"}, 0, 1 << 16);
  const std::int64_t ratio = ratios && layer < ratios->size() ? (*ratios)[layer] : 0;
  block.kind = ratio == 0 ? AttentionKind::sliding_window : AttentionKind::full;
  block.kv_compression = std::max<std::int64_t>(1, ratio);
  // Only lightly compressed layers choose among their rows.
  if (ratio > 0 && ratio <= 16) block.indexer = indexer_of(config);
  return block;
}

AttentionBlock sliding(Config& config, AttentionBlock block) {
  block.kind = AttentionKind::sliding_window;
  block.window = config.need_int({"sliding_window", "sliding_window_size"});
  if (const auto heads = config.find_int({"swa_num_attention_heads"}, 1, 1 << 16)) block.heads = *heads;
  if (const auto heads = config.find_int({"swa_num_key_value_heads"}, 1, 1 << 16)) block.kv_heads = *heads;
  if (const auto size = config.find_int({"swa_head_dim"}, 1, 1 << 16)) block.head_dim = *size;
  if (const auto size = config.find_int({"swa_v_head_dim"}, 1, 1 << 16)) block.value_head_dim = *size;
  return block;
}

/// Layers of full context may have heads of their own beside sliding ones (Gemma).
AttentionBlock global(Config& config, AttentionBlock block) {
  if (const auto size = config.find_int({"global_head_dim"}, 1, 1 << 16)) block.head_dim = *size;
  if (const auto heads = config.find_int({"num_global_key_value_heads"}, 1, 1 << 16)) block.kv_heads = *heads;
  block.shared_kv = config.find_bool({"attention_k_eq_v"}).value_or(false);
  return block;
}

AttentionBlock linear(Config& config, const Family& family, std::int64_t hidden) {
  AttentionBlock block;
  add_common(config, family, block);
  block.qk_norm = false;
  if (const auto heads = config.find_int({"linear_num_value_heads"}, 1, 1 << 16)) {
    block.kind = AttentionKind::gated_delta_net;
    block.linear = LinearAttentionSpec{config.need_int({"linear_num_key_heads"}, 1, 1 << 16), *heads,
                                       config.need_int({"linear_key_head_dim"}, 1, 1 << 16),
                                       config.need_int({"linear_value_head_dim"}, 1, 1 << 16),
                                       config.find_int({"linear_conv_kernel_dim"}, 0, 1 << 16).value_or(4)};
  } else if (const auto kimi = config.find_int({"linear_attn_config.num_heads"}, 1, 1 << 16)) {
    const std::int64_t size = config.need_int({"linear_attn_config.head_dim"}, 1, 1 << 16);
    block.kind = AttentionKind::kimi_delta;
    block.linear =
        LinearAttentionSpec{*kimi, *kimi, size, size,
                            config.find_int({"linear_attn_config.short_conv_kernel_size"}, 0, 1 << 16).value_or(4)};
  } else {
    const std::int64_t count = head_count(config);
    const std::int64_t size = head_width(config, hidden, count);
    block.kind = AttentionKind::lightning;
    block.linear = LinearAttentionSpec{count, count, size, size, 0};
  }
  block.heads = block.linear->value_heads;
  block.kv_heads = block.linear->key_heads;
  block.head_dim = block.linear->key_head_dim;
  return block;
}

/// Indexer of a layer: some layers reuse that of the layer before, or attend to everything.
std::optional<IndexerSpec> layer_indexer(Config& config, std::size_t layer) {
  const auto types = config.find_texts({"indexer_types"});
  if (types && layer < types->size() && (*types)[layer] != "full") return std::nullopt;
  const auto flags = config.find_ints({"sparse_attention_config.sparse_attention_freq"});
  if (flags && layer < flags->size() && (*flags)[layer] == 0) return std::nullopt;
  return indexer_of(config);
}

}  // namespace

AttentionBlock full_attention(Config& config, const Family& family, std::int64_t hidden) {
  AttentionBlock block;
  block.heads = head_count(config);
  add_common(config, family, block);
  if (const auto rank = config.find_int({"kv_lora_rank"}, 1, 1 << 20)) {
    block.kind = AttentionKind::latent;
    block.latent =
        LatentSpec{config.find_int({"q_lora_rank"}, 0, 1 << 20).value_or(0), *rank,
                   config.need_int({"qk_nope_head_dim"}, 0, 1 << 16), config.need_int({"qk_rope_head_dim"}, 0, 1 << 16),
                   config.need_int({"v_head_dim"}, 1, 1 << 16)};
    block.kv_heads = block.heads;
    block.head_dim = block.latent->nope_head_dim + block.latent->rope_head_dim;
    block.value_head_dim = block.latent->value_head_dim;
    static_cast<void>(config.find({"num_key_value_heads", "head_dim", "qk_head_dim"}));  // say nothing here
    return block;
  }
  block.kv_heads = config
                       .find_int({"num_key_value_heads", "num_kv_heads", "n_head_kv", "attn_config.kv_n_heads",
                                  "multi_query_group_num"},
                                 1, 1 << 16)
                       .value_or(block.heads);
  block.head_dim = head_width(config, hidden, block.heads);
  block.value_head_dim = config.find_int({"v_head_dim"}, 1, 1 << 16).value_or(0);
  return block;
}

StateSpaceBlock state_space(Config& config, std::int64_t hidden) {
  StateSpaceBlock block;
  block.conv_size = config.find_int({"conv_kernel", "mamba_d_conv"}, 0, 1 << 16).value_or(4);
  if (const auto heads = config.find_int({"mamba_num_heads", "mamba_n_heads"}, 1, 1 << 16)) {
    block.heads = *heads;
    block.inner_width = *heads * config.need_int({"mamba_head_dim", "mamba_d_head"}, 1, 1 << 10);
    block.groups = config.find_int({"n_groups", "mamba_n_groups"}, 1, 1 << 16).value_or(1);
    block.state_size = config.need_int({"ssm_state_size", "mamba_d_state"}, 1, 1 << 16);
    static_cast<void>(config.find({"expand"}));  // heads and head_dim say it exactly
    return block;
  }
  block.version = 1;
  block.inner_width = hidden * config.find_int({"mamba_expand", "expand"}, 1, 64).value_or(2);
  block.state_size = config.need_int({"mamba_d_state", "ssm_state_size"}, 1, 1 << 16);
  block.dt_rank = config.find_int({"mamba_dt_rank", "time_step_rank"}, 1, 1 << 20).value_or((hidden + 15) / 16);
  return block;
}

std::vector<Block> mixer_blocks(Config& config, const Family& family, std::int64_t hidden, std::size_t layers) {
  // One shared key-value head and a low-rank output: the layers say how far each compresses its cache.
  const bool compresses = config.find({"compress_ratios"}).has_value();
  std::vector<Block> blocks;
  if (compresses) {
    for (std::size_t i = 0; i < layers; ++i) {
      blocks.emplace_back(compressed(config, full_attention(config, family, hidden), i));
    }
    return blocks;
  }
  const std::vector<Mixer> mixers = mixer_of_layers(config, family, layers);
  for (std::size_t i = 0; i < layers; ++i) {
    if (mixers[i] == Mixer::state_space) {
      blocks.emplace_back(state_space(config, hidden));
      continue;
    }
    if (mixers[i] == Mixer::linear) {
      blocks.emplace_back(linear(config, family, hidden));
      continue;
    }
    AttentionBlock block = full_attention(config, family, hidden);
    if (mixers[i] == Mixer::sliding) block = sliding(config, block);
    if (mixers[i] == Mixer::full) block = global(config, block);
    if (mixers[i] == Mixer::chunked) {
      block.kind = AttentionKind::chunked;
      block.window = config.need_int({"attention_chunk_size"});
    }
    block.indexer = layer_indexer(config, i);
    if (block.latent && (block.indexer || config.find({"index_topk"}))) block.kind = AttentionKind::sparse_latent;
    blocks.emplace_back(block);
  }
  return blocks;
}

}  // namespace moecast::huggingface
