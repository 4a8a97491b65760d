#include "models/architecture/dense_twin.h"

#include <gtest/gtest.h>

#include "models/architecture/accounting.h"
#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "tests/support/small_models.h"

namespace moecast {
namespace {

TEST(DenseTwin, HasTheActiveOrTheTotalParametersOfTheBlock_C7) {
  const Architecture moe = small_moe_layer();
  // Active: two experts of 3 * 64 * 32 and a router of 64 * 8; a column of width costs 3 * 64.
  const auto width = [&](Matched matched) {
    return std::get<DenseFfnBlock>(dense_twin(moe, matched).decoder[0].blocks[0]).ffn.width;
  };
  EXPECT_EQ(width(Matched::flops), 2 * 32 + 3);  // 64 * 8 / (3 * 64) = 2.67
  EXPECT_EQ(width(Matched::parameters), 8 * 32 + 3);
  EXPECT_EQ(std::get<DenseFfnBlock>(dense_twin(moe, Matched::flops, 16).decoder[0].blocks[0]).ffn.width, 64);
}

TEST(DenseTwin, MatchesEveryModelOfTheZoo_C7) {
  const std::string zoo = MOECAST_SOURCE_DIR "/models/zoo";
  int models = 0;
  for (const std::string& name : zoo_names(zoo)) {
    const Architecture a = load_zoo(zoo, name);
    const ParameterCount own = count_parameters(a);
    double blocks = 0;
    double column = 0;  // of the widest token: the most that rounding a width can change
    for (const auto* stack : {&a.encoder, &a.decoder}) {
      for (const Layer& layer : *stack) {
        for (const Block& block : layer.blocks) blocks += std::holds_alternative<MoeBlock>(block) ? 1 : 0;
      }
    }
    column = 3.0 * static_cast<double>(std::max(a.hidden, a.encoder_hidden)) + 2;
    if (blocks == 0) {
      EXPECT_THROW(static_cast<void>(dense_twin(a, Matched::flops)), InputError) << name;
      continue;
    }
    const ParameterCount flops = count_parameters(dense_twin(a, Matched::flops));
    const ParameterCount total = count_parameters(dense_twin(a, Matched::parameters));
    EXPECT_EQ(flops.routed_experts, 0) << name;
    EXPECT_EQ(flops.total, flops.active) << name;
    EXPECT_NEAR(flops.total, own.active, blocks * column / 2) << name;
    EXPECT_NEAR(total.total, own.total, blocks * column / 2) << name;
    ++models;
  }
  EXPECT_GE(models, 60);
}

TEST(DenseTwin, RefusesADivisorBelowOne) {
  EXPECT_THROW(static_cast<void>(dense_twin(small_moe_layer(), Matched::flops, 0)), InputError);
}

}  // namespace
}  // namespace moecast
