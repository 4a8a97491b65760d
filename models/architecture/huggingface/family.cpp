#include "models/architecture/huggingface/family.h"

#include <array>

namespace moecast::huggingface {
namespace {

constexpr ScoreOrder kLate = ScoreOrder::top_k_then_score;

/// Read from the modelling code of the transformers library and of the checkpoints.
constexpr std::array kFamilies{
    Family{.model_type = "llama"},
    Family{.model_type = "mistral"},
    Family{.model_type = "mixtral", .renormalise = true},
    Family{
        .model_type = "llama4_text", .shared_experts = 1, .score = ScoreFunction::sigmoid, .full_attention_every = 4},
    Family{.model_type = "qwen2", .bias_qkv = true},
    Family{.model_type = "qwen2_moe", .bias_qkv = true},
    Family{.model_type = "qwen3", .qk_norm = true},
    Family{.model_type = "qwen3_moe", .qk_norm = true},
    Family{.model_type = "qwen3_vl", .qk_norm = true},
    Family{.model_type = "qwen3_vl_text", .qk_norm = true},
    Family{.model_type = "qwen3_vl_moe", .qk_norm = true},
    Family{.model_type = "qwen3_vl_moe_text", .qk_norm = true},
    Family{.model_type = "qwen3_next", .qk_norm = true, .output_gate = true, .renormalise = true},
    Family{.model_type = "qwen3_5_text", .qk_norm = true, .output_gate = true},
    Family{.model_type = "qwen3_5_moe_text", .qk_norm = true, .output_gate = true, .renormalise = true},
    Family{.model_type = "deepseek"},
    Family{.model_type = "deepseek_v2"},
    Family{.model_type = "deepseek_v3", .selection_bias = true, .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "deepseek_v32", .selection_bias = true, .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "deepseek_v4", .renormalise = true},
    Family{.model_type = "deepseek_ref", .renormalise = true},
    Family{.model_type = "kimi_k2", .selection_bias = true, .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "kimi_linear", .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "glm4_moe", .selection_bias = true, .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "glm_moe_dsa", .selection_bias = true, .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "gpt_oss",
           .bias_qkv = true,
           .bias_out = true,
           .ffn_bias = true,
           .router_bias = true,
           .order = kLate},
    Family{.model_type = "minimax", .renormalise = true},
    Family{.model_type = "minimax_text_01", .renormalise = true},
    Family{.model_type = "minimax_m1", .renormalise = true},
    Family{.model_type = "minimax_m2", .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "minimax_m3", .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "minimax_m3_vl", .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "mimo", .bias_qkv = true},
    Family{.model_type = "mimo_v2_flash", .score = ScoreFunction::sigmoid},
    Family{.model_type = "step3p7", .qk_norm = true, .score = ScoreFunction::sigmoid, .renormalise = true},
    Family{.model_type = "nemotron_h",
           .gated = false,
           .selection_bias = true,
           .score = ScoreFunction::sigmoid,
           .renormalise = true},
    Family{.model_type = "gemma4_text", .qk_norm = true, .renormalise = true, .tied_embeddings = true},
    Family{.model_type = "olmoe", .qk_norm = true},
    Family{.model_type = "granitemoe", .order = kLate, .tied_embeddings = true},
    Family{.model_type = "phimoe", .bias_qkv = true, .bias_out = true},
    Family{.model_type = "dbrx", .renormalise = true},
    Family{.model_type = "grok-1"},
    Family{.model_type = "jamba"},
    Family{.model_type = "arctic"},
    Family{.model_type = "hunyuan", .qk_norm = true, .renormalise = true},
    Family{.model_type = "ernie4_5_moe", .selection_bias = true, .renormalise = true},
    Family{.model_type = "ernie4_5_moe_vl", .selection_bias = true, .renormalise = true},
    Family{.model_type = "openmoe"},
    Family{.model_type = "switch_transformers", .gated = false, .tied_embeddings = true},
    Family{.model_type = "nllb-moe",
           .bias_qkv = true,
           .bias_out = true,
           .gated = false,
           .ffn_bias = true,
           .tied_embeddings = true},
};

}  // namespace

std::optional<Family> find_family(std::string_view model_type) {
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return family;
  }
  return std::nullopt;
}

}  // namespace moecast::huggingface
