#include "profiler/cpu/router.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "models/core/error.h"

namespace moecast {
namespace {

struct Routed {
  std::vector<std::int32_t> ids;
  std::vector<float> weights;
};

Routed route(const RouterSpec& router, const std::vector<float>& logits, const std::vector<float>& bias = {}) {
  Routed routed;
  routed.ids.resize(static_cast<std::size_t>(router.top_k));
  routed.weights.resize(routed.ids.size());
  route_top_k(router, logits, bias, {}, 1, static_cast<std::int64_t>(logits.size()), routed.ids, routed.weights);
  return routed;
}

TEST(RouteTopK, SoftmaxAfterTopKSumsToOne) {
  RouterSpec router;
  router.top_k = 2;
  router.order = ScoreOrder::top_k_then_score;
  const Routed routed = route(router, {1, 3, 2, -1});
  EXPECT_EQ(routed.ids, (std::vector<std::int32_t>{1, 2}));
  EXPECT_NEAR(routed.weights[0], 1 / (1 + std::exp(-1.0)), 1e-6);  // softmax over {3, 2}
  EXPECT_NEAR(routed.weights[0] + routed.weights[1], 1, 1e-6);
}

TEST(RouteTopK, SoftmaxBeforeTopKKeepsItsShareUnlessRenormalised) {
  RouterSpec router;
  router.top_k = 2;
  const double total = std::exp(1.0) + std::exp(3.0) + std::exp(2.0) + std::exp(-1.0);
  EXPECT_NEAR(route(router, {1, 3, 2, -1}).weights[0], std::exp(3.0) / total, 1e-6);
  router.renormalise = true;
  EXPECT_NEAR(route(router, {1, 3, 2, -1}).weights[0], 1 / (1 + std::exp(-1.0)), 1e-6);
}

TEST(RouteTopK, BiasChangesTheChoiceButNotTheWeight) {
  RouterSpec router;
  router.top_k = 1;
  router.score = ScoreFunction::sigmoid;
  const Routed routed = route(router, {2, 1, 0}, {0, 0, 5});
  EXPECT_EQ(routed.ids[0], 2);
  EXPECT_NEAR(routed.weights[0], 0.5, 1e-6);  // sigmoid(0), without the bias
}

TEST(RouteTopK, GroupLimitKeepsExpertsOfTheBestGroups) {
  RouterSpec router;
  router.top_k = 2;
  router.score = ScoreFunction::sigmoid;
  router.groups = 3;
  router.top_groups = 1;
  // Sums of the two best: group 0 has the single best expert, group 1 the best pair.
  const Routed routed = route(router, {4, -9, 2, 2, 0, 0});
  EXPECT_EQ(routed.ids, (std::vector<std::int32_t>{2, 3}));
}

TEST(RouteTopK, ScaleMultipliesTheWeights) {
  RouterSpec router;
  router.top_k = 1;
  router.order = ScoreOrder::top_k_then_score;
  router.scale = 2.5;
  EXPECT_NEAR(route(router, {0, 1}).weights[0], 2.5, 1e-6);
}

TEST(RouteTopK, RefusesMoreExpertsThanThereAre) {
  RouterSpec router;
  router.top_k = 3;
  EXPECT_THROW(route(router, {0, 1}), InputError);
}

}  // namespace
}  // namespace moecast
