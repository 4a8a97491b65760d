#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/architecture/checks.h"
#include "models/architecture/huggingface.h"
#include "models/architecture/huggingface/attention.h"
#include "models/architecture/huggingface/encoder_decoder.h"
#include "models/architecture/huggingface/feed_forward.h"
#include "models/architecture/huggingface/placement.h"
#include "models/architecture/huggingface/quantisation.h"
#include "models/core/error.h"

namespace moecast {
namespace huggingface {
namespace {

constexpr std::int64_t kMaxLayers = 4096;

/// A hybrid model's blocks, one a layer.
std::vector<Layer> hybrid_layers(Config& config, const Family& family, std::int64_t hidden,
                                 const std::string& pattern) {
  std::vector<Layer> layers;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    switch (pattern[i]) {
      case 'M': layers.push_back({{state_space(config, hidden)}}); break;
      case 'E': layers.push_back({{moe_block(config, family, hidden, i, pattern.size())}}); break;
      case '*': layers.push_back({{full_attention(config, family, hidden)}}); break;
      default: layers.push_back({{dense_block(config, family)}}); break;
    }
  }
  static_cast<void>(config.find({"num_hidden_layers", "use_bias", "use_conv_bias", "mamba_proj_bias", "chunk_size",
                                 "mamba_hidden_act", "mamba_ssm_cache_dtype", "moe_shared_expert_overlap",
                                 "intermediate_size", "time_step_rank"}));
  return layers;
}

std::vector<Layer> plain_layers(Config& config, const Family& family, std::int64_t hidden, std::size_t count) {
  const std::vector<Block> mixers = mixer_blocks(config, family, hidden, count);
  const std::vector<Block> networks = feed_forward_blocks(config, family, hidden, count);
  std::vector<Layer> layers;
  for (std::size_t i = 0; i < count; ++i) layers.push_back({{mixers[i], networks[i]}});
  return layers;
}

/// Layers that guess further tokens: a pattern of their own, or copies of the last layer.
std::vector<Layer> further_tokens(Config& config, const Family& family, Architecture& architecture) {
  const std::string pattern = hybrid_pattern(config, {"mtp_hybrid_override_pattern"}, {"mtp_layers_block_type"});
  const std::int64_t count =
      config.find_int({"num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules"}, 0, 64).value_or(0);
  static_cast<void>(config.find({"use_mtp", "mtp_transformer_layers", "mtp_use_dedicated_embeddings"}));
  if (!pattern.empty() && pattern.size() <= 64) return hybrid_layers(config, family, architecture.hidden, pattern);
  if (architecture.decoder.empty()) return {};
  return std::vector<Layer>(static_cast<std::size_t>(count), architecture.decoder.back());
}

void note_what_is_left_out(const JsonView& root, const Config& config, bool known, Architecture& architecture) {
  if (!known) {
    architecture.notes.push_back(
        "model_type \"" + config.family() +
        "\" is not known: imported from its fields, as a gated network without biases where they say nothing");
  }
  for (const char* tower : {"vision_config", "audio_config", "sound_config", "vit_config"}) {
    if (root.has(tower))
      architecture.notes.push_back(std::string(tower) + " is not modelled: the language model alone");
  }
  std::string ignored;
  for (const std::string& key : config.ignored()) {
    if (key == "vision_config" || key == "audio_config") continue;
    ignored += (ignored.empty() ? "" : ", ") + key;
  }
  if (!ignored.empty()) architecture.notes.push_back("ignored fields: " + ignored);
}

Architecture import(const JsonView& root, const std::string& name) {
  Config config(root);
  const auto known = find_family(config.family());
  const Family family = known.value_or(Family{});
  Architecture architecture;
  architecture.name = name;
  architecture.hidden = config.need_int({"hidden_size", "d_model", "n_embd", "dim", "emb_dim"}, 1, 1 << 20);
  architecture.vocabulary = config.need_int({"vocab_size", "padded_vocab_size"});
  architecture.tied_embeddings =
      config.find_bool({"tie_word_embeddings", "share_embeddings_and_output_weights"}).value_or(family.tied_embeddings);
  architecture.max_context =
      config.find_int({"max_position_embeddings", "max_seq_len", "n_positions", "max_sequence_length"}).value_or(0);
  read_number_formats(config, architecture);
  const std::string pattern = hybrid_pattern(config, {"hybrid_override_pattern"}, {"layers_block_type"});
  if (is_encoder_decoder(config)) {
    read_encoder_decoder(config, family, architecture);
  } else if (!pattern.empty()) {
    if (pattern.size() > kMaxLayers) throw InputError(config.where(), "the pattern of layers is too long");
    architecture.decoder = hybrid_layers(config, family, architecture.hidden, pattern);
  } else {
    const std::int64_t count =
        config.need_int({"num_hidden_layers", "num_layers", "n_layers", "n_layer"}, 1, kMaxLayers);
    architecture.decoder = plain_layers(config, family, architecture.hidden, static_cast<std::size_t>(count));
  }
  architecture.multi_token_prediction = further_tokens(config, family, architecture);
  note_what_is_left_out(root, config, known.has_value(), architecture);
  check_architecture(architecture, root.where());
  return architecture;
}

}  // namespace
}  // namespace huggingface

bool looks_like_huggingface(const JsonView& json) {
  for (const char* key : {"model_type", "architectures", "hidden_size", "d_model", "text_config"}) {
    if (json.has(key)) return true;
  }
  return false;
}

Architecture import_huggingface(const JsonView& config, const std::string& name) {
  return huggingface::import(config, name);
}

}  // namespace moecast
