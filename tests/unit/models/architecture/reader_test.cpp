#include "models/architecture/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/architecture/checks.h"
#include "models/architecture/names.h"
#include "models/core/error.h"

namespace moecast {
namespace {

using testing::HasSubstr;

constexpr const char* kSmall = R"({
  "moecast_architecture": 1, "name": "small", "hidden": 64, "vocabulary": 100,
  "blocks": {
    "attention": {"type": "attention", "heads": 4, "kv_heads": 2, "head_dim": 16},
    "moe": {"type": "moe", "experts": [{"count": 8, "expert": {"width": 32}}], "router": {"top_k": 2}}
  },
  "decoder": [{"repeat": 3, "blocks": ["attention", "moe"]}]
})";

Architecture read(const std::string& text) { return load_architecture_text(text, "small.json"); }

/// kSmall with one piece of text replaced.
std::string changed(const std::string& from, const std::string& to) {
  std::string text = kSmall;
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

/// "where: what" and the hint of the error that reading gives.
std::string refusal(const std::string& text) {
  try {
    read(text);
  } catch (const InputError& error) {
    return std::string(error.what()) + " | " + error.hint();
  }
  return "accepted";
}

TEST(ReadArchitecture, AListOfEqualExpertsIsTheHomogeneousLayer_A16) {
  const std::string whole = R"({"count": 8, "expert": {"width": 32}})";
  const std::string three = R"({"count": 3, "expert": {"width": 32}}, )";
  const std::string one = R"({"expert": {"width": 32}, "count": 1})";
  // Equal objects: every number that is made of them is equal to the last bit.
  EXPECT_EQ(read(changed(whole, three + three + one + ", " + one)), read(kSmall));
  // Unlike experts stay where they are: popularity goes by their order.
  const std::string wide = R"({"count": 1, "expert": {"width": 64}}, )";
  const Architecture mixed = read(changed(whole, three + wide + three + one));
  const auto& experts = std::get<MoeBlock>(mixed.decoder[0].blocks[1]).experts;
  ASSERT_EQ(experts.size(), 3U);
  EXPECT_EQ(experts[0].count, 3);
  EXPECT_EQ(experts[1].expert.width, 64);
  EXPECT_EQ(experts[2].count, 4);
}

TEST(ReadArchitecture, RunsAndNamedBlocksMakeLayers) {
  const Architecture small = read(kSmall);
  ASSERT_EQ(small.decoder.size(), 3U);
  const auto& moe = std::get<MoeBlock>(small.decoder[2].blocks[1]);
  EXPECT_EQ(moe.expert_count(), 8);
  EXPECT_EQ(moe.router.top_k, 2);
  EXPECT_TRUE(moe.experts[0].expert.gated);
  EXPECT_EQ(std::get<AttentionBlock>(small.decoder[0].blocks[0]).kv_heads, 2);
  const Architecture nested =
      read(changed(R"({"repeat": 3, "blocks": ["attention", "moe"]})",
                   R"({"repeat": 2, "layers": [{"blocks": ["moe"]}, {"blocks": ["attention"]}]})"));
  ASSERT_EQ(nested.decoder.size(), 4U);
  EXPECT_EQ(nested.decoder[3].blocks[0].index(), 0U);
}

TEST(ReadArchitecture, WritingAndReadingGivesTheSameModel) {
  Architecture all = read(kSmall);
  all.notes = {"a", "b"};
  all.source = "by hand";
  all.published = {1e9, std::nullopt, "a card"};
  all.expert_dtype = DType::mxfp4;
  auto& moe = std::get<MoeBlock>(all.decoder[1].blocks[1]);
  moe.router.top_k_distribution = {0.25, 0.1, 0.65};
  moe.router.network = RouterNetwork::mlp;
  moe.router.mlp_widths = {128, 64};
  moe.router.score = ScoreFunction::sigmoid;
  moe.capacity.eval_factor = 1.1;
  moe.dense_residual = ExpertSpec{};
  moe.dense_residual->width = 3;
  moe.experts.push_back({2, moe.experts[0].expert, "image"});
  AttentionBlock latent;
  latent.kind = AttentionKind::sparse_latent;
  latent.heads = 4;
  latent.latent = LatentSpec{0, 8, 4, 4, 4};
  latent.indexer = IndexerSpec{};
  RecurrentBlock gru{32, 3, 8};
  StateSpaceBlock mamba;
  mamba.inner_width = 128;
  mamba.state_size = 16;
  mamba.heads = 2;
  ConvolutionBlock convolution{64, 64, 3, 3, 1, 64};
  all.encoder = {{{latent, gru}}, {{mamba, convolution, OwnCostBlock{"own", 1, 2.5, 3}}}, {{DenseFfnBlock{}}}};
  std::get<DenseFfnBlock>(all.encoder[2].blocks[0]).ffn.width = 7;
  all.multi_token_prediction = {all.decoder[0]};
  const Json json = write_architecture(all);
  EXPECT_EQ(read_architecture(JsonView(json, "written")), all);
  EXPECT_EQ(read(dump_json(json)), all);
}

TEST(WriteArchitecture, FoldsRepeatedPatterns) {
  Architecture a = read(kSmall);
  const Layer moe = {{a.decoder[0].blocks[1]}};
  const Layer attention = {{a.decoder[0].blocks[0]}};
  a.decoder.clear();
  for (int i = 0; i < 12; ++i) a.decoder.insert(a.decoder.end(), {moe, moe, moe, attention});
  const Json json = write_architecture(a);
  ASSERT_EQ(json["decoder"].size(), 1U);
  EXPECT_EQ(json["decoder"][0]["repeat"], 12);
  EXPECT_EQ(json["decoder"][0]["layers"].size(), 2U);
  EXPECT_EQ(read_architecture(JsonView(json, "written")), a);
}

TEST(ReadArchitecture, RefusesUnknownFieldsWithTheNearest) {
  EXPECT_THAT(refusal(changed("\"top_k\"", "\"topk\"")), HasSubstr("/blocks/moe/router"));
  EXPECT_THAT(refusal(changed("\"top_k\"", "\"topk\"")), HasSubstr("did you mean \"top_k\"?"));
  EXPECT_THAT(refusal(changed("\"type\": \"moe\"", "\"type\": \"mow\"")), HasSubstr("did you mean \"moe\"?"));
  EXPECT_THAT(refusal(changed("[\"attention\", ", "[\"atention\", ")), HasSubstr("did you mean \"attention\"?"));
}

TEST(ReadArchitecture, RefusesSizesThatMakeNoModelNamingWhere) {
  EXPECT_THAT(refusal(changed("\"top_k\": 2", "\"top_k\": 9")),
              HasSubstr("small.json: /blocks/moe/router/top_k: 9 experts"));
  EXPECT_THAT(refusal(changed("\"width\": 32", "\"width\": -1")), HasSubstr("/blocks/moe/experts/0/expert/width"));
  EXPECT_THAT(refusal(changed("\"width\": 32", "\"width\": 0")), HasSubstr("must be at least 1"));
  EXPECT_THAT(refusal(changed("\"width\": 32", "\"width\": 1e15")), HasSubstr("width"));
  EXPECT_THAT(refusal(changed("\"kv_heads\": 2", "\"kv_heads\": 3")), HasSubstr("3 does not divide the 4 heads"));
  EXPECT_THAT(refusal(changed("\"top_k\": 2", "\"top_k\": 2, \"groups\": 3")),
              HasSubstr("does not divide the 8 experts"));
  EXPECT_THAT(refusal(changed("\"top_k\": 2", "\"top_k\": 5, \"groups\": 2")), HasSubstr("fewer than top_k"));
  EXPECT_THAT(refusal(changed("\"repeat\": 3", "\"repeat\": 1000000000")), HasSubstr("/decoder/0/repeat"));
  EXPECT_THAT(refusal(changed("\"hidden\": 64,", "")), HasSubstr("\"hidden\" is missing"));
  EXPECT_THAT(refusal(changed("\"top_k\": 2", "\"top_k_distribution\": [0.5, 0.6]")), HasSubstr("adds up to"));
}

TEST(ReadArchitecture, NestedRunsCannotExplode) {
  const std::string run = R"({"repeat": 10000, "layers": [{"repeat": 10000, "blocks": ["moe"]}]})";
  EXPECT_THAT(refusal(changed(R"({"repeat": 3, "blocks": ["attention", "moe"]})", run)), HasSubstr("more than 16384"));
}

TEST(LoadArchitecture, SaysWhatIsNotAModel) {
  EXPECT_THAT(refusal("[1, 2]"), HasSubstr("is not a model"));
  EXPECT_THAT(refusal("{\"a\": "), HasSubstr("is not valid JSON"));
  EXPECT_THAT(refusal(std::string(100000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(refusal(changed("\"moecast_architecture\": 1", "\"moecast_architecture\": 2")),
              HasSubstr("expected 1 to 1"));
}

TEST(EnumNames, NameEveryValueOnce) {
  for (const auto& [name, value] : enum_names<AttentionKind>()) EXPECT_EQ(enum_name(value), name);
  EXPECT_EQ(enum_names<AttentionKind>().size(), static_cast<std::size_t>(AttentionKind::kimi_delta) + 1);
  EXPECT_EQ(enum_names<RouterKind>().size(), static_cast<std::size_t>(RouterKind::architecture) + 1);
  EXPECT_EQ(enum_names<Activation>().size(), static_cast<std::size_t>(Activation::identity) + 1);
}

}  // namespace
}  // namespace moecast
