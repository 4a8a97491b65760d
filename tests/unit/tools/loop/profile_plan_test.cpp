#include "tools/loop/profile_plan.h"

#include <gtest/gtest.h>

#include <vector>

namespace moecast {
namespace {

std::vector<KernelSetting> combinations() {
  return {{"onednn", DType::fp32, 1}, {"onednn", DType::fp32, 2}, {"openblas", DType::fp32, 1}};
}

std::size_t layers(double budget_s) { return closure_layers(combinations(), {}, Seconds(budget_s), 4).size(); }

TEST(ClosureLayers, GrowWithTheBudgetUpToEnough) {
  const std::size_t fewest = layers(0.1);
  const std::size_t most = layers(600);
  EXPECT_EQ(fewest, combinations().size() + 4) << "one of each combination, three strategies and transformers";
  EXPECT_EQ(most, 7 * fewest);
  EXPECT_GT(layers(5), fewest);
  EXPECT_LT(layers(5), most);
  EXPECT_EQ(layers(1e9), most) << "whoever has no budget: more layers than an int counts";
  EXPECT_EQ(layers(1e30), most);
}

}  // namespace
}  // namespace moecast
