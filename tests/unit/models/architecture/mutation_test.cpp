// Whatever stands in a model file, reading it ends in a model or in an InputError.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "models/architecture/accounting.h"
#include "models/architecture/reader.h"
#include "models/core/error.h"

namespace moecast {
namespace {

const char* const kConfigs[] = {
    R"({"model_type": "deepseek_v3", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 100, "kv_lora_rank": 8,
        "num_attention_heads": 4, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
        "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
        "moe_layer_freq": [0, 1, 1, 1], "moe_intermediate_size": 16, "intermediate_size": 32, "n_shared_experts": 1,
        "index_n_heads": 2, "index_head_dim": 8, "index_topk": 16, "indexer_types": ["full", "shared", "full", "full"],
        "num_nextn_predict_layers": 1, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128],
        "ignore": ["a.self_attn*"], "quantized_layers": {"x.experts.0": {"quant_algo": "FP8"}}}})",
    R"({"model_type": "nemotron_h", "hidden_size": 64, "vocab_size": 100, "hybrid_override_pattern": "ME*-",
        "num_attention_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "intermediate_size": 16, "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2,
        "mtp_layers_block_type": ["attention", "moe"], "mlp_hidden_act": "relu2", "moe_latent_size": 32})",
    R"({"model_type": "qwen3_5_moe", "vision_config": {}, "text_config": {"hidden_size": 64, "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention", "sliding_attention", "chunked_attention"],
        "sliding_window": 8, "attention_chunk_size": 8, "vocab_size": 100, "num_attention_heads": 4, "num_experts": [8, 4],
        "moe_intermediate_size": [16, 8], "num_experts_per_tok": 2, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "compress_ratios": null, "moe_capacity": [1, 2, 3]}})",
    R"({"model_type": "nllb-moe", "d_model": 64, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_experts": 8,
        "vocab_size": 100, "encoder_sparse_step": 2, "decoder_sparse_step": 2, "expert_capacity": 64})"};

/// A value that has no business where it lands.
Json odd_value(std::mt19937& random) {
  static const std::vector<Json> kValues{nullptr,
                                         true,
                                         false,
                                         0,
                                         -1,
                                         3,
                                         7.5,
                                         1e18,
                                         9223372036854775807LL,
                                         "",
                                         "x",
                                         "relu",
                                         Json::array(),
                                         Json::object(),
                                         Json{1, 2},
                                         Json{0},
                                         Json{{"a", 1}},
                                         Json{"full_attention"},
                                         Json{nullptr},
                                         1 << 16,
                                         1 << 20,
                                         1 << 28,
                                         -1e300};
  return kValues[random() % kValues.size()];
}

/// Every place in a document that holds a value.
void collect(Json& value, std::vector<Json*>& places) {
  for (auto& element : value) {
    places.push_back(&element);
    if (element.is_structured()) collect(element, places);
  }
}

/// Replaces one to three values and reads the result. @return true if a model came out.
bool survives(const Json& original, std::mt19937& random) {
  Json changed = original;
  for (auto changes = 1 + random() % 3; changes > 0; --changes) {
    std::vector<Json*> places;
    collect(changed, places);
    if (!places.empty()) *places[random() % places.size()] = odd_value(random);
  }
  try {
    const Architecture model = load_architecture_text(changed.dump(), "mutant.json", "mutant");
    const ParameterCount count = count_parameters(model);
    EXPECT_TRUE(std::isfinite(count.total)) << changed.dump();
    EXPECT_GE(count.total, 0) << changed.dump();
    return true;
  } catch (const InputError&) {
    return false;
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what() << "\n" << changed.dump();
    return false;
  }
}

TEST(ModelFiles, MutatedConfigurationsGiveAModelOrAnInputError) {
  std::mt19937 random(20261126);
  for (const char* text : kConfigs) {
    const Json original = Json::parse(text);
    ASSERT_NO_THROW(load_architecture_text(text, "original.json")) << text;
    int models = 0;
    for (int i = 0; i < 400; ++i) models += survives(original, random) ? 1 : 0;
    EXPECT_GT(models, 0) << text;
    EXPECT_LT(models, 400) << text;
  }
}

TEST(ModelFiles, MutatedOwnDescriptionsGiveAModelOrAnInputError) {
  std::mt19937 random(5);
  for (const char* name : {"tiny-mlp-moe", "nllb-moe-54b", "kimi-k3"}) {
    const Json original = read_json_file(MOECAST_SOURCE_DIR "/models/zoo/" + std::string(name) + ".json");
    for (int i = 0; i < 300; ++i) survives(original, random);
  }
}

}  // namespace
}  // namespace moecast
