#pragma once
#include <cstdint>
#include <optional>

namespace moecast {

enum class AttentionKind {
  full,
  sliding_window,
  chunked,
  latent,
  sparse_latent,
  cross,
  gated_delta_net,
  lightning,
  kimi_delta
};

/// Multi-head latent attention (DeepSeek): low-rank projections, one latent row in the KV cache.
struct LatentSpec {
  std::int64_t q_rank = 0;  ///< 0 = full query projection
  std::int64_t kv_rank = 0;
  std::int64_t nope_head_dim = 0;
  std::int64_t rope_head_dim = 0;
  std::int64_t value_head_dim = 0;
  friend bool operator==(const LatentSpec&, const LatentSpec&) = default;
};

/// Sparse attention's indexer (DSA): its own small heads choose `top_tokens` of the context.
struct IndexerSpec {
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t top_tokens = 0;
  friend bool operator==(const IndexerSpec&, const IndexerSpec&) = default;
};

/// Linear attention with a recurrent state: delta nets and lightning attention.
struct LinearAttentionSpec {
  std::int64_t key_heads = 0;
  std::int64_t value_heads = 0;
  std::int64_t key_head_dim = 0;
  std::int64_t value_head_dim = 0;
  std::int64_t conv_size = 0;
  friend bool operator==(const LinearAttentionSpec&, const LinearAttentionSpec&) = default;
};

struct AttentionBlock {
  AttentionKind kind = AttentionKind::full;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;        ///< never derived from hidden / heads once imported
  std::int64_t value_head_dim = 0;  ///< 0 = head_dim
  std::int64_t window = 0;          ///< sliding or chunk length, 0 = unlimited
  bool bias_qkv = false;
  bool bias_out = false;
  bool qk_norm = false;
  bool output_gate = false;
  bool causal = true;
  bool shared_kv = false;     ///< values are the keys: one projection, one row in the cache
  std::int64_t q_rank = 0;    ///< low-rank query outside latent attention, 0 = full
  std::int64_t out_rank = 0;  ///< low-rank output projection in `out_groups` groups of heads, 0 = full
  std::int64_t out_groups = 1;
  std::int64_t source_layers = 1;   ///< cross: last layers of the encoder whose outputs are all seen
  std::int64_t kv_compression = 1;  ///< tokens that one cached row stands for, beyond the window
  std::optional<LatentSpec> latent;
  std::optional<IndexerSpec> indexer;
  std::optional<LinearAttentionSpec> linear;
  friend bool operator==(const AttentionBlock&, const AttentionBlock&) = default;
};

}  // namespace moecast
