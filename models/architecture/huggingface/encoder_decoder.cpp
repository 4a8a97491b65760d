#include "models/architecture/huggingface/encoder_decoder.h"

#include "models/architecture/huggingface/attention.h"
#include "models/architecture/huggingface/feed_forward.h"

namespace moecast::huggingface {
namespace {

struct Side {
  Names layers;
  Names heads;
  Names width;
  Names sparse_step;
  Names sparse_layers;
};

/// Steps of the checkpoints' own code: layer i has experts where i % step is 1 (all layers for a step of 1).
std::vector<Layer> side_layers(Config& config, const Family& family, const Architecture& architecture, const Side& side,
                               bool decodes) {
  const auto count = static_cast<std::size_t>(config.need_int(side.layers, 0, 4096));
  // A step that the configuration leaves out follows from the number of sparse layers.
  const std::int64_t sparse = config.find_int(side.sparse_layers).value_or(-1);
  std::int64_t step = config.find_int(side.sparse_step).value_or(0);
  if (step == 0 && sparse > 0) step = static_cast<std::int64_t>(count) / sparse;
  AttentionBlock attention = full_attention(config, family, architecture.hidden);
  if (const auto heads = config.find_int(side.heads, 1, 1 << 16)) {
    attention.heads = attention.kv_heads = *heads;
    if (!config.find({"d_kv", "head_dim"})) attention.head_dim = architecture.hidden / *heads;
  }
  attention.causal = decodes;
  AttentionBlock cross = attention;
  cross.kind = AttentionKind::cross;
  cross.causal = false;
  DenseFfnBlock dense = dense_block(config, family);
  if (const auto width = config.find_int(side.width, 1, 1 << 20)) dense.ffn.width = *width;
  std::vector<Layer> layers;
  for (std::size_t i = 0; i < count; ++i) {
    Layer layer{{attention}};
    if (decodes) layer.blocks.emplace_back(cross);
    const auto position = static_cast<std::int64_t>(i);
    // NLLB-MoE puts experts into the last layer of each stretch, Switch into the second.
    const bool last = family.model_type == "nllb-moe";
    const bool hit = step > 0 && (last ? (position + 1) % step == 0 : position % step == (step == 1 ? 0 : 1));
    if (hit && has_experts(config)) {
      MoeBlock moe = moe_block(config, family, architecture.hidden, i, count);
      moe.experts.front().expert = dense.ffn;
      layer.blocks.emplace_back(moe);
    } else {
      layer.blocks.emplace_back(dense);
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace

bool is_encoder_decoder(Config& config) {
  return config.find({"num_decoder_layers", "decoder_layers"}).has_value() &&
         config.find_bool({"is_encoder_decoder"}).value_or(true);
}

void read_encoder_decoder(Config& config, const Family& family, Architecture& architecture) {
  architecture.encoder = side_layers(config, family, architecture,
                                     {{"encoder_layers", "num_layers", "num_hidden_layers"},
                                      {"encoder_attention_heads"},
                                      {"encoder_ffn_dim"},
                                      {"encoder_sparse_step"},
                                      {"num_sparse_encoder_layers"}},
                                     false);
  architecture.decoder = side_layers(config, family, architecture,
                                     {{"decoder_layers", "num_decoder_layers"},
                                      {"decoder_attention_heads"},
                                      {"decoder_ffn_dim"},
                                      {"decoder_sparse_step"},
                                      {"num_sparse_decoder_layers"}},
                                     true);
}

}  // namespace moecast::huggingface
