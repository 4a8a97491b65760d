#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "models/architecture/moe.h"

namespace moecast::huggingface {

/// What the code of a model family does and its config.json does not say. Everything else is read from fields.
struct Family {
  std::string_view model_type;
  bool qk_norm = false;
  bool bias_qkv = false;
  bool bias_out = false;
  bool output_gate = false;
  bool gated = true;      ///< feed-forward networks have three matrices
  bool ffn_bias = false;  ///< experts and feed-forward networks
  bool router_bias = false;
  bool selection_bias = false;
  std::int64_t shared_experts = 0;  ///< of the experts' width
  ScoreFunction score = ScoreFunction::softmax;
  ScoreOrder order = ScoreOrder::score_then_top_k;
  bool renormalise = false;
  bool tied_embeddings = false;
  int full_attention_every = 0;  ///< chunked attention but in every n-th layer
};

/// nullopt for a family that is not in the table.
std::optional<Family> find_family(std::string_view model_type);

}  // namespace moecast::huggingface
