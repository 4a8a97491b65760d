#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "profiler/cpu/router.h"
#include "profiler/reference/oracle_routing.h"

namespace moecast {
namespace {

struct Order {
  const char* name;
  ScoreFunction score;
  ScoreOrder order;
  bool renormalise;
  bool biased;
};

/// The orders that published routers use: Mixtral and gpt-oss, Switch and Qwen, OLMoE, DeepSeek-V3, sqrt(softplus).
const std::vector<Order> kOrders{
    {"top-k then softmax", ScoreFunction::softmax, ScoreOrder::top_k_then_score, false, false},
    {"softmax then top-k", ScoreFunction::softmax, ScoreOrder::score_then_top_k, false, false},
    {"softmax then top-k, renormalised", ScoreFunction::softmax, ScoreOrder::score_then_top_k, true, false},
    {"sigmoid with bias, renormalised", ScoreFunction::sigmoid, ScoreOrder::score_then_top_k, true, true},
    {"square root of softplus", ScoreFunction::sqrt_softplus, ScoreOrder::score_then_top_k, true, false},
};

TEST(Gates, EveryOrderEqualsTheReference_B3) {
  constexpr std::int64_t kTokens = 200;
  constexpr std::int64_t kExperts = 16;
  std::mt19937 generator(3);
  std::normal_distribution<float> normal(0, 2);
  Matrix logits(kTokens, kExperts);
  for (float& value : logits.values) value = normal(generator);
  std::vector<float> bias(kExperts);
  for (float& value : bias) value = 0.1F * normal(generator);
  for (const Order& order : kOrders) {
    RouterSpec router;
    router.top_k = 2;
    router.score = order.score;
    router.order = order.order;
    router.renormalise = order.renormalise;
    const std::vector<float> used = order.biased ? bias : std::vector<float>{};
    std::vector<std::int32_t> ids(kTokens * 2);
    std::vector<float> weights(ids.size());
    route_top_k(router, logits.values, used, {}, kTokens, kExperts, ids, weights);
    const OracleRoute expected = oracle_route(router, {}, logits, used);
    for (std::int64_t t = 0; t < kTokens; ++t) {
      double total = 0;
      for (std::int64_t j = 0; j < 2; ++j) {
        const auto at = static_cast<std::size_t>(2 * t + j);
        ASSERT_NEAR(weights[at], expected.gates.at(t, ids[at]), 1e-6) << order.name << ", token " << t;
        total += weights[at];
      }
      double reference = 0;
      for (const float gate : expected.gates.row(t)) reference += gate;
      ASSERT_NEAR(total, reference, 2e-6) << order.name << ": another expert was chosen for token " << t;
    }
  }
}

}  // namespace
}  // namespace moecast
