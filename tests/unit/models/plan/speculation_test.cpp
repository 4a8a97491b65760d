#include "models/plan/speculation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/core/error.h"

namespace moecast {
namespace {

Architecture guessing(std::size_t modules) {
  Architecture model;
  model.name = "guessing";
  model.hidden = 64;
  model.vocabulary = 100;
  model.decoder.assign(4, Layer{{AttentionBlock{}, DenseFfnBlock{}}});
  model.multi_token_prediction.assign(modules, Layer{{AttentionBlock{}, DenseFfnBlock{}}});
  return model;
}

TEST(Speculation, TokensOfAStepAreAGeometricSum) {
  EXPECT_EQ(tokens_per_step(0, 0.9), 1);
  EXPECT_EQ(tokens_per_step(3, 0), 1);
  EXPECT_EQ(tokens_per_step(3, 1), 4);
  EXPECT_NEAR(tokens_per_step(2, 0.5), 1.75, 1e-15);
  EXPECT_NEAR(tokens_per_step(5, 0.8), (1 - std::pow(0.8, 6)) / (1 - 0.8), 1e-12);
}

TEST(Speculation, EachModuleGuessesOnceAndTheLastGoesOn) {
  Architecture model = guessing(2);
  std::get<DenseFfnBlock>(model.multi_token_prediction[1].blocks[1]).ffn.width = 77;
  EXPECT_EQ(draft_modules(model), 2U);
  for (const int guess : {0, 1, 2, 5}) {
    const Architecture stack = draft_stack(model, guess);
    ASSERT_EQ(stack.decoder.size(), 1U);
    EXPECT_EQ(stack.decoder[0], model.multi_token_prediction[guess == 0 ? 0 : 1]) << guess;
    EXPECT_TRUE(stack.multi_token_prediction.empty());
  }
}

TEST(Speculation, LayersOfOneBlockGuessTogether) {
  Architecture model = guessing(0);
  model.multi_token_prediction = {Layer{{AttentionBlock{}}}, Layer{{DenseFfnBlock{}}}};
  EXPECT_EQ(draft_modules(model), 1U);
  EXPECT_EQ(draft_stack(model, 3).decoder.size(), 2U);
}

TEST(Speculation, WhatCannotGuessIsRefused) {
  Deployment deployment;
  Workload workload;
  EXPECT_NO_THROW(require_drafts(guessing(0), deployment, workload));
  deployment.draft_tokens = 1;
  EXPECT_THROW(require_drafts(guessing(1), deployment, workload), InputError) << "acceptance is not known";
  workload.acceptance = 0.8;
  EXPECT_NO_THROW(require_drafts(guessing(1), deployment, workload));
  EXPECT_THROW(require_drafts(guessing(0), deployment, workload), InputError);
  deployment.cp = 2;
  EXPECT_THROW(require_drafts(guessing(1), deployment, workload), InputError);
}

}  // namespace
}  // namespace moecast
