#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/architecture/huggingface.h"
#include "models/architecture/reader.h"
#include "models/core/error.h"

namespace moecast {
namespace {

using testing::Contains;
using testing::HasSubstr;

/// A small model with experts and `fields` on top of it (null removes one).
Architecture import(const char* fields) {
  Json config = Json::parse(R"({"model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "num_experts": 8,
    "num_experts_per_tok": 2})");
  config.merge_patch(Json::parse(fields));
  return import_huggingface(JsonView(config, "config.json"), "small");
}

const MoeBlock& moe(const Architecture& model, std::size_t layer = 0) {
  return std::get<MoeBlock>(model.decoder.at(layer).blocks.back());
}
const AttentionBlock& attention(const Architecture& model, std::size_t layer = 0) {
  return std::get<AttentionBlock>(model.decoder.at(layer).blocks.front());
}

TEST(HuggingfaceTrap, ModalitiesHaveExpertsOfTheirOwnWidth) {
  const Architecture model = import(
      R"({"model_type": "ernie4_5_moe_vl", "num_hidden_layers": 3, "num_experts": null, "moe_num_experts": [6, 4],
          "moe_intermediate_size": [48, 16], "moe_num_shared_experts": 2})");
  ASSERT_EQ(moe(model).experts.size(), 2U);
  EXPECT_EQ(moe(model).experts[1].count, 4);
  EXPECT_EQ(moe(model).experts[1].expert.width, 16);
  EXPECT_EQ(moe(model).experts[1].modality, "image");
  EXPECT_EQ(moe(model).shared.count, 2);
}

TEST(HuggingfaceTrap, ListsOfEveryLayerAreReadLayerByLayer) {
  const Architecture model = import(
      R"({"model_type": "hunyuan", "moe_intermediate_size": [32, 48], "moe_topk": [1, 3], "num_experts_per_tok": null,
          "num_shared_expert": [1, 2]})");
  EXPECT_EQ(moe(model, 0).experts[0].expert.width, 32);
  EXPECT_EQ(moe(model, 1).experts[0].expert.width, 48);
  EXPECT_EQ(moe(model, 1).router.top_k, 3);
  EXPECT_EQ(moe(model, 1).shared.count, 2);
}

TEST(HuggingfaceTrap, CapacityHasManyNames) {
  EXPECT_FALSE(moe(import("{}")).capacity.limited());
  EXPECT_EQ(moe(import(R"({"expert_capacity": 64})")).capacity.absolute, 64);
  const auto arctic = moe(import(R"({"moe_train_capacity_factor": 1, "moe_eval_capacity_factor": 2,
                                     "moe_min_capacity": 4})"))
                          .capacity;
  EXPECT_EQ(arctic.train_factor, 1);
  EXPECT_EQ(arctic.eval_factor, 2);
  EXPECT_EQ(arctic.minimum, 4);
  EXPECT_FALSE(moe(import(R"({"moe_eval_capacity_factor": 2, "moe_token_dropping": false})")).capacity.limited());
  EXPECT_EQ(
      moe(import(R"({"router_capacity_factor_eval": 2.0, "router_capacity_factor_train": 1.25})")).capacity.eval_factor,
      2);
  EXPECT_EQ(moe(import(R"({"moe_capacity": [64, 32, 64]})")).capacity.eval_factor, 32);
}

TEST(HuggingfaceTrap, SharedExpertsByCountByWidthOrByBoth) {
  EXPECT_EQ(moe(import(R"({"moe_intermediate_size": 32, "n_shared_experts": 2})")).shared.expert.width, 32);
  const auto qwen = moe(import(R"({"moe_intermediate_size": 32, "shared_expert_intermediate_size": 80})")).shared;
  EXPECT_EQ(qwen.count, 1);
  EXPECT_EQ(qwen.expert.width, 80);
  EXPECT_TRUE(qwen.gate);
  EXPECT_EQ(moe(import(R"({"shared_intermediate_size": 0})")).shared.count, 0);
}

TEST(HuggingfaceTrap, LatentExpertsWorkAtANarrowerWidth) {
  EXPECT_EQ(moe(import(R"({"routed_expert_hidden_size": 32})")).latent_width, 32);
  EXPECT_EQ(moe(import(R"({"moe_latent_size": 16})")).latent_width, 16);
}

TEST(HuggingfaceTrap, SomeExpertsHaveTwoMatricesAndBiases) {
  const auto oss = moe(import(R"({"model_type": "gpt_oss"})"));
  EXPECT_TRUE(oss.experts[0].expert.bias);
  EXPECT_TRUE(oss.router.linear_bias);
  EXPECT_EQ(oss.router.order, ScoreOrder::top_k_then_score);
  const Architecture model = import(
      R"({"model_type": "switch_transformers", "d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 4, "hidden_size": null,
          "num_decoder_layers": 4, "num_heads": 4, "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2,
          "num_experts": 8, "expert_capacity": 64, "num_experts_per_tok": null, "intermediate_size": null,
          "dense_act_fn": "relu"})");
  ASSERT_EQ(model.encoder.size(), 4U);
  const auto& sparse = std::get<MoeBlock>(model.encoder[1].blocks.back());
  EXPECT_FALSE(sparse.experts[0].expert.gated);
  EXPECT_EQ(sparse.experts[0].expert.width, 128);  // the checkpoint's, not the class's default
  EXPECT_EQ(sparse.router.top_k, 1);
  EXPECT_TRUE(std::holds_alternative<DenseFfnBlock>(model.encoder[0].blocks.back()));
  EXPECT_EQ(std::get<AttentionBlock>(model.decoder[0].blocks[1]).kind, AttentionKind::cross);
}

TEST(HuggingfaceTrap, HashLayersNeedNoRouterNetwork) {
  const Architecture model = import(R"({"num_hash_layers": 1, "scoring_func": "sqrtsoftplus"})");
  EXPECT_EQ(moe(model, 0).router.kind, RouterKind::hash);
  EXPECT_EQ(moe(model, 1).router.kind, RouterKind::token_choice);
  EXPECT_EQ(moe(model, 1).router.score, ScoreFunction::sqrt_softplus);
}

TEST(HuggingfaceTrap, ADenseNetworkMayRunBesideTheExperts) {
  EXPECT_EQ(moe(import(R"({"use_residual": true})")).dense_residual->width, 64);
  const auto gemma = moe(import(R"({"enable_moe_block": true, "moe_intermediate_size": 32})"));
  EXPECT_EQ(gemma.dense_residual->width, 96);
  EXPECT_EQ(gemma.experts[0].expert.width, 32);
}

TEST(HuggingfaceTrap, ExpertsAloneMayBeQuantised) {
  const Architecture oss = import(R"({"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}})");
  EXPECT_EQ(oss.dtype, DType::bf16);
  EXPECT_EQ(oss.expert_dtype, DType::mxfp4);
  const Architecture fp8 = import(R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128],
    "modules_to_not_convert": ["model.layers.0.self_attn.indexer.weights_proj"]}})");
  EXPECT_EQ(fp8.dtype, DType::fp8_block);
  EXPECT_FALSE(fp8.expert_dtype);
  const Architecture deepseek = import(R"({"expert_dtype": "fp4", "quantization_config": {"quant_method": "fp8",
    "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}})");
  EXPECT_EQ(deepseek.dtype, DType::fp8_block);
  EXPECT_EQ(deepseek.expert_dtype, DType::mxfp4);
  const Architecture cache = import(R"({"quantization_config": {"quant_algo": "NVFP4", "quant_method": "modelopt",
    "ignore": ["model.layers.0.self_attn*"], "kv_cache_scheme": {"num_bits": 8, "type": "float"}}})");
  EXPECT_EQ(cache.expert_dtype, DType::nvfp4);
  EXPECT_EQ(cache.kv_dtype, DType::fp8);
}

TEST(HuggingfaceTrap, RoutersWithGroupsAndASelectionBias) {
  const auto router =
      moe(import(R"({"n_group": 4, "topk_group": 2, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
                                     "routed_scaling_factor": 2.5, "norm_topk_prob": true})"))
          .router;
  EXPECT_EQ(router.groups, 4);
  EXPECT_EQ(router.top_groups, 2);
  EXPECT_TRUE(router.selection_bias);
  EXPECT_EQ(router.scale, 2.5);
  EXPECT_TRUE(router.renormalise);
}

TEST(HuggingfaceTrap, EveryLayerHasItsOwnAttention) {
  const Architecture gemma = import(
      R"({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "head_dim": 16,
          "global_head_dim": 32, "num_global_key_value_heads": 1, "attention_k_eq_v": true})");
  EXPECT_EQ(attention(gemma, 0).window, 8);
  EXPECT_EQ(attention(gemma, 1).head_dim, 32);
  EXPECT_TRUE(attention(gemma, 1).shared_kv);
  const Architecture qwen = import(
      R"({"full_attention_interval": 2, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
          "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4})");
  EXPECT_EQ(attention(qwen, 0).kind, AttentionKind::gated_delta_net);
  EXPECT_EQ(attention(qwen, 1).kind, AttentionKind::full);
  // A window that is switched off is none.
  EXPECT_EQ(attention(import(R"({"sliding_window": 8, "use_sliding_window": false})")).window, 0);
}

TEST(ImportHuggingface, AnUnknownFamilyIsImportedSayingWhatWasIgnored) {
  const Architecture model = import(R"({"model_type": "brand_new", "warp_drive": 7})");
  EXPECT_EQ(moe(model).expert_count(), 8);
  EXPECT_THAT(model.notes, Contains(HasSubstr("\"brand_new\" is not known")));
  EXPECT_THAT(model.notes, Contains(HasSubstr("ignored fields: warp_drive")));
}

TEST(ImportHuggingface, AMissingEssentialFieldIsNamedWithItsSynonyms) {
  const auto refusal = [](const char* fields) {
    try {
      import(fields);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refusal(R"({"hidden_size": null})"), HasSubstr("\"hidden_size\" (also d_model"));
  EXPECT_THAT(refusal(R"({"num_experts_per_tok": null})"), HasSubstr("\"num_experts_per_tok\" (also"));
  EXPECT_THAT(refusal(R"({"intermediate_size": null})"), HasSubstr("\"moe_intermediate_size\" (also"));
  EXPECT_THAT(refusal(R"({"num_experts_per_tok": 9})"), HasSubstr("9 experts a token, but there are only 8"));
  EXPECT_THAT(refusal(R"({"hidden_size": -64})"), HasSubstr("config.json: /hidden_size"));
  EXPECT_THAT(refusal(R"({"num_hidden_layers": 100000000})"), HasSubstr("/num_hidden_layers"));
  EXPECT_THAT(refusal(R"({"num_key_value_heads": 3})"), HasSubstr("3 does not divide"));
}

TEST(LoadArchitecture, ReadsTheInfinityThatPythonWrites) {
  const Architecture model = load_architecture_text(
      R"({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 4,
          "intermediate_size": 8, "time_step_limit": [0.0, Infinity], "prefix": "Infinity \" NaN"})",
      "config.json", "tiny");
  EXPECT_EQ(model.name, "tiny");
}

}  // namespace
}  // namespace moecast
