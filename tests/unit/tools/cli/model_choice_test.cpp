#include "tools/cli/model_choice.h"

#include <gtest/gtest.h>

#include "models/architecture/accounting.h"
#include "models/core/error.h"

namespace moecast {
namespace {

DataFolders source_tree() { return {MOECAST_SOURCE_DIR "/models/zoo", MOECAST_SOURCE_DIR "/hwprofiles", "", ""}; }

TEST(MakeLayer, IsALoneBlockOfTheSizesAsked) {
  LayerChoice choice;
  choice.hidden = 64;
  choice.width = 128;
  choice.experts = 8;
  choice.top_k = 2;
  choice.shared_experts = 1;
  choice.gated = false;
  choice.activation = "relu";
  choice.capacity_factor = 1.25;
  choice.overflow = "next-best";
  const Architecture layer = make_layer(choice);
  EXPECT_TRUE(is_lone_block(layer));
  const auto& moe = std::get<MoeBlock>(layer.decoder[0].blocks[0]);
  EXPECT_EQ(moe.expert_count(), 8);
  EXPECT_EQ(moe.experts[0].expert.activation, Activation::relu);
  EXPECT_EQ(moe.capacity.overflow, Overflow::next_best);
  EXPECT_EQ(moe.shared.expert.width, 128);
}

TEST(MakeLayer, RefusesWhatMakesNoLayerAsAUsageError) {
  LayerChoice choice;
  choice.hidden = 64;
  choice.width = 128;
  choice.experts = 4;
  choice.top_k = 5;
  EXPECT_THROW(make_layer(choice), UsageError);
  choice.top_k = 2;
  choice.activation = "reluu";
  try {
    make_layer(choice);
    FAIL() << "accepted";
  } catch (const UsageError& error) {
    EXPECT_EQ(error.hint(), "did you mean \"relu\"?");
  }
}

TEST(LoadModel, TheToyOfThreeClassifiersComesByName_D6) {
  const Architecture toy = load_model("tiny-mlp-moe", source_tree());
  EXPECT_TRUE(is_lone_block(toy));
  const auto& moe = std::get<MoeBlock>(toy.decoder[0].blocks[0]);
  EXPECT_EQ(moe.router.top_k, moe.expert_count());
  // Experts 3 (4 * 32 + 32 + 32 * 3 + 3) = 777; gate 4 * 128 + 128 + 128 * 256 + 256 + 256 * 128 + 128 + 128 * 3 + 3.
  EXPECT_EQ(block_parameters(moe, toy.hidden).total, 777 + 66947);
}

TEST(LoadModel, AnUnknownNameIsAUsageErrorWithTheNearest) {
  try {
    load_model("tiny-mlp-mo", source_tree());
    FAIL() << "accepted";
  } catch (const UsageError& error) {
    EXPECT_EQ(error.hint(), "did you mean \"tiny-mlp-moe\"?");
  }
  EXPECT_THROW(load_model("./no-such-file.json", source_tree()), InputError);
}

}  // namespace
}  // namespace moecast
