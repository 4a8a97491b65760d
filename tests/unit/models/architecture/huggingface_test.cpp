#include "models/architecture/huggingface.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/architecture/reader.h"
#include "models/core/error.h"

namespace moecast {
namespace {

using testing::HasSubstr;

/// A small dense model and `fields` on top of it (null removes one).
Architecture import(const char* fields, Json base = Json{{"model_type", "mixtral"},
                                                         {"hidden_size", 64},
                                                         {"num_hidden_layers", 4},
                                                         {"num_attention_heads", 4},
                                                         {"num_key_value_heads", 2},
                                                         {"intermediate_size", 96},
                                                         {"vocab_size", 100}}) {
  base.merge_patch(Json::parse(fields));
  return import_huggingface(JsonView(base, "config.json"), "small");
}

std::string refusal(const char* fields) {
  try {
    import(fields);
  } catch (const InputError& error) {
    return std::string(error.what()) + " | " + error.hint();
  }
  return "accepted";
}

const MoeBlock& moe(const Architecture& model, std::size_t layer = 0) {
  return std::get<MoeBlock>(model.decoder.at(layer).blocks.back());
}
const AttentionBlock& attention(const Architecture& model, std::size_t layer = 0) {
  return std::get<AttentionBlock>(model.decoder.at(layer).blocks.front());
}

/// 'E' for layers with experts, '-' for dense ones.
std::string placement(const Architecture& model) {
  std::string text;
  for (const Layer& layer : model.decoder) text += std::holds_alternative<MoeBlock>(layer.blocks.back()) ? 'E' : '-';
  return text;
}

TEST(HuggingfaceTrap, HeadWidthIsReadNotDerived) {
  EXPECT_EQ(attention(import(R"({"head_dim": 32})")).head_dim, 32);  // not 64 / 4
  EXPECT_EQ(attention(import("{}")).head_dim, 16);
  EXPECT_THAT(refusal(R"({"num_attention_heads": 6, "num_key_value_heads": 6})"), HasSubstr("\"head_dim\" is missing"));
}

TEST(HuggingfaceTrap, Llama4NamesTheExpertWidthIntermediateSizeAndNestsItsText) {
  const Architecture model = import_huggingface(
      JsonView(Json::parse(R"({"model_type": "llama4", "vision_config": {}, "text_config": {"model_type": "llama4_text",
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 9,
        "intermediate_size": 32, "intermediate_size_mlp": 128, "interleave_moe_layer_step": 2, "num_local_experts": 4,
        "num_experts_per_tok": 1, "attention_chunk_size": 8}})"),
               "config.json"),
      "small");
  EXPECT_EQ(placement(model), "-E-E");
  EXPECT_EQ(std::get<DenseFfnBlock>(model.decoder[0].blocks[1]).ffn.width, 128);
  EXPECT_EQ(moe(model, 1).experts[0].expert.width, 32);
  EXPECT_EQ(moe(model, 1).shared.count, 1);  // in the code, not in the file
  EXPECT_EQ(attention(model, 0).kind, AttentionKind::chunked);
  EXPECT_EQ(attention(model, 3).kind, AttentionKind::full);
  EXPECT_THAT(model.notes, testing::Contains(HasSubstr("vision_config")));
}

class ExpertSynonym : public testing::TestWithParam<const char*> {};
TEST_P(ExpertSynonym, IsTheNumberOfExperts) {
  const std::string fields = std::string("{\"num_experts_per_tok\": 2, \"") + GetParam() + "\": 8}";
  EXPECT_EQ(moe(import(fields.c_str())).expert_count(), 8);
}
INSTANTIATE_TEST_SUITE_P(HuggingfaceTrap, ExpertSynonym,
                         testing::Values("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"));

class TopKSynonym : public testing::TestWithParam<const char*> {};
TEST_P(TopKSynonym, IsTheNumberOfExpertsATokenUses) {
  const std::string fields = std::string("{\"num_experts\": 8, \"top_k\": 50, \"") + GetParam() + "\": 3}";
  EXPECT_EQ(moe(import(fields.c_str())).router.top_k, 3);  // top_k itself is a sampling parameter
}
INSTANTIATE_TEST_SUITE_P(HuggingfaceTrap, TopKSynonym,
                         testing::Values("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_k",
                                         "moe_topk", "router_topk", "moe_top_k", "top_k_experts",
                                         "num_selected_experts"));

TEST(HuggingfaceTrap, DbrxNestsItsExperts) {
  const Architecture model = import(
      R"({"ffn_config": {"moe_num_experts": 16, "moe_top_k": 4, "ffn_hidden_size": 80}, "attn_config": {"kv_n_heads": 1},
          "num_key_value_heads": null, "intermediate_size": null})");
  EXPECT_EQ(moe(model).expert_count(), 16);
  EXPECT_EQ(moe(model).experts[0].expert.width, 80);
  EXPECT_EQ(moe(model).router.top_k, 4);
  EXPECT_EQ(attention(model).kv_heads, 1);
}

struct Placed {
  const char* fields;
  const char* layers;
};
class Placement : public testing::TestWithParam<Placed> {};
TEST_P(Placement, FollowsTheFields) {
  Json fields = Json::parse(GetParam().fields);
  fields.merge_patch(Json::parse(R"({"num_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 8})"));
  EXPECT_EQ(placement(import(fields.dump().c_str())), GetParam().layers);
}
INSTANTIATE_TEST_SUITE_P(
    HuggingfaceTrap, Placement,
    testing::Values(
        Placed{"{}", "EEEEEEEE"}, Placed{R"({"decoder_sparse_step": 2})", "-E-E-E-E"},
        Placed{R"({"decoder_sparse_step": 1, "mlp_only_layers": [0, 5]})", "-EEEE-EE"},
        Placed{R"({"first_k_dense_replace": 3, "moe_layer_freq": 1})", "---EEEEE"},
        Placed{R"({"moe_layer_freq": [0, 1, 1, 0, 1, 0, 0, 1]})", "-EE-E--E"},
        Placed{R"({"interleave_moe_layer_step": 4})", "---E---E"},
        Placed{R"({"expert_layer_period": 2, "expert_layer_offset": 1})", "-E-E-E-E"},
        Placed{R"({"moe_layer_interval": 2, "moe_layer_start_index": 3, "moe_layer_end_index": 6})", "---E-E--"},
        Placed{R"({"moe_layer_interval": 1, "moe_layer_start_index": 1, "moe_layer_end_index": -1})", "-EEEEEEE"},
        Placed{R"({"mlp_layer_types": ["dense","sparse","sparse","sparse","sparse","sparse","sparse","dense"]})",
               "-EEEEEE-"},
        Placed{R"({"enable_moe_block": false})", "--------"}));

TEST(HuggingfaceTrap, AListOfFlagsThatIsTooShortIsRefused) {
  EXPECT_THAT(refusal(R"({"num_experts": 8, "num_experts_per_tok": 2, "moe_layer_freq": [0, 1]})"),
              HasSubstr("\"moe_layer_freq\" lists 2 layers, the model has 4"));
}

TEST(HuggingfaceTrap, HybridPatternsAreOneBlockALayer) {
  const char* fields = R"({"model_type": "nemotron_h", "hybrid_override_pattern": "ME*-", "n_routed_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "moe_shared_expert_intermediate_size": 24,
    "n_shared_experts": 1, "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2,
    "mlp_hidden_act": "relu2", "moe_latent_size": 32})";
  const Architecture model = import(fields);
  ASSERT_EQ(model.decoder.size(), 4U);
  EXPECT_EQ(std::get<StateSpaceBlock>(model.decoder[0].blocks[0]).inner_width, 32);
  const auto& experts = std::get<MoeBlock>(model.decoder[1].blocks[0]);
  EXPECT_FALSE(experts.experts[0].expert.gated);  // relu squared has two matrices
  EXPECT_EQ(experts.experts[0].expert.activation, Activation::relu_squared);
  EXPECT_EQ(experts.shared.expert.width, 24);
  EXPECT_EQ(experts.latent_width, 32);  // fewer bytes travel
  EXPECT_TRUE(std::holds_alternative<AttentionBlock>(model.decoder[2].blocks[0]));
  EXPECT_THAT(refusal(R"({"hybrid_override_pattern": "MX"})"), HasSubstr("layer 1"));
}

}  // namespace
}  // namespace moecast
