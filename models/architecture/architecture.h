#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "models/architecture/attention.h"
#include "models/architecture/moe.h"
#include "models/core/dtype.h"

namespace moecast {

/// A feed-forward network that every token passes.
struct DenseFfnBlock {
  ExpertSpec ffn;
  friend bool operator==(const DenseFfnBlock&, const DenseFfnBlock&) = default;
};

/// State-space mixer (Mamba, Mamba-2).
struct StateSpaceBlock {
  int version = 2;
  std::int64_t inner_width = 0;
  std::int64_t state_size = 0;
  std::int64_t heads = 0;   ///< version 2 only
  std::int64_t groups = 1;  ///< version 2 only
  std::int64_t conv_size = 4;
  std::int64_t dt_rank = 0;  ///< version 1 only
  friend bool operator==(const StateSpaceBlock&, const StateSpaceBlock&) = default;
};

/// LSTM or GRU layer.
struct RecurrentBlock {
  std::int64_t width = 0;
  int gates = 4;                ///< 4 LSTM, 3 GRU
  std::int64_t projection = 0;  ///< width of a recurrent projection, 0 = none
  friend bool operator==(const RecurrentBlock&, const RecurrentBlock&) = default;
};

/// 2-D (or 1-D, kernel_height 1) convolution over positions.
struct ConvolutionBlock {
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t kernel_height = 1;
  std::int64_t kernel_width = 1;
  std::int64_t stride = 1;
  std::int64_t groups = 1;
  friend bool operator==(const ConvolutionBlock&, const ConvolutionBlock&) = default;
};

using Block = std::variant<AttentionBlock, MoeBlock, DenseFfnBlock, StateSpaceBlock, RecurrentBlock, ConvolutionBlock,
                           OwnCostBlock>;

/// Residual blocks in order, each after a norm of its own.
struct Layer {
  std::vector<Block> blocks;
  friend bool operator==(const Layer&, const Layer&) = default;
};

/// Parameters as the makers state them; nullopt = not found.
struct Published {
  std::optional<double> total;
  std::optional<double> active;
  std::string source;
  friend bool operator==(const Published&, const Published&) = default;
};

/// A whole model. Layers are listed one by one, so that any placement of experts is expressible.
struct Architecture {
  std::string name;
  std::int64_t hidden = 0;
  std::int64_t encoder_hidden = 0;  ///< of the encoder where it is another, 0 = hidden
  std::int64_t vocabulary = 0;      ///< 0: no embedding and no head (a vision tower, a single layer)
  bool tied_embeddings = false;
  std::int64_t max_context = 0;               ///< 0 = unknown
  std::vector<Layer> encoder;                 ///< empty in decoder-only models
  std::vector<Layer> decoder;                 ///< empty in encoder-only models
  std::vector<Layer> multi_token_prediction;  ///< extra layers, not part of the published totals
  DType dtype = DType::bf16;                  ///< weights and activations unless said otherwise
  std::optional<DType> expert_dtype;          ///< routed experts where they are quantised alone
  std::optional<DType> kv_dtype;              ///< KV cache; nullopt = dtype
  double other_parameters = 0;  ///< parts that are counted but not modelled (vision tower), named in `notes`
  double position_embedding_parameters = 0;
  std::vector<std::string> notes;  ///< what the importer ignored or assumed
  std::string source;              ///< where the figures come from
  Published published;
  friend bool operator==(const Architecture&, const Architecture&) = default;
};

/// Width of a token in a stack.
inline std::int64_t stack_hidden(const Architecture& architecture, bool encoder) {
  return encoder && architecture.encoder_hidden > 0 ? architecture.encoder_hidden : architecture.hidden;
}

/// A lone block (a single MoE layer): no vocabulary and one layer of one block. It is executed, planned and timed bare,
/// without the norm and the residual addition that blocks of a whole model have.
inline bool is_lone_block(const Architecture& architecture) {
  return architecture.vocabulary == 0 && architecture.encoder.empty() && architecture.decoder.size() == 1 &&
         architecture.decoder.front().blocks.size() == 1;
}

}  // namespace moecast
