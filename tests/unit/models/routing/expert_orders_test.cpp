// Popularity ranks over layers and steps: as correlated as asked, the same for a seed.
#include "models/routing/expert_orders.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr int kExperts = 4096;
/// A rank correlation of 4096 pairs is known to 1/64 (one standard deviation, at most).
constexpr double kSpread = 0.05;

std::vector<double> ranks_of(std::span<const std::int32_t> order) {
  std::vector<double> rank(order.size());
  for (std::size_t place = 0; place < order.size(); ++place) {
    rank[static_cast<std::size_t>(order[place])] = static_cast<double>(place);
  }
  return rank;
}

double spearman(const std::vector<double>& a, const std::vector<double>& b) {
  const auto n = static_cast<double>(a.size());
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return 1 - 6 * squares / (n * (n * n - 1));
}

TEST(ExpertOrders, NeighbouringLayersCorrelateAsAsked_D3) {
  for (const double asked : {0.0, 0.3, 0.7, 0.95, 1.0}) {
    const ExpertOrders orders(kExperts, 1, 4, {asked, 0}, 5);
    for (int layer = 0; layer + 1 < 4; ++layer) {
      EXPECT_NEAR(spearman(ranks_of(orders.at(layer)), ranks_of(orders.at(layer + 1))), asked,
                  asked == 1 ? 0 : kSpread);
    }
    if (asked == 0.7) {
      EXPECT_LT(spearman(ranks_of(orders.at(0)), ranks_of(orders.at(3))), 0.5) << "further apart, less alike";
    }
  }
}

TEST(ExpertOrders, StepsDriftAsAsked_D3) {
  for (const double drift : {0.0, 0.1, 0.6, 1.0}) {
    ExpertOrders orders(kExperts, 1, 2, {0.5, drift}, 7);
    for (int layer = 0; layer < 2; ++layer) {
      orders.go_to(0);
      std::vector<double> before = ranks_of(orders.at(layer));
      for (int step = 1; step < 4; ++step) {
        orders.go_to(step);
        std::vector<double> now = ranks_of(orders.at(layer));
        EXPECT_NEAR(spearman(before, now), 1 - drift, drift == 0 ? 0 : kSpread) << step;
        before = std::move(now);
      }
    }
  }
}

TEST(ExpertOrders, TheSameForASeedWhateverWasAskedBefore_D3) {
  ExpertOrders one(64, 1, 3, {0.4, 0.2}, 9);
  ExpertOrders two(64, 1, 3, {0.4, 0.2}, 9);
  one.go_to(7);
  one.go_to(2);
  two.go_to(2);
  for (int layer = 0; layer < 3; ++layer) EXPECT_TRUE(std::ranges::equal(one.at(layer), two.at(layer)));
  ExpertOrders other(64, 1, 3, {0.4, 0.2}, 10);
  other.go_to(2);
  EXPECT_FALSE(std::ranges::equal(two.at(0), other.at(0)));
}

TEST(ExpertOrders, GroupsStayTogether) {
  const ExpertOrders orders(32, 4, 2, {0.5, 0}, 1);
  for (int layer = 0; layer < 2; ++layer) {
    std::set<std::int32_t> seen(orders.at(layer).begin(), orders.at(layer).end());
    EXPECT_EQ(seen.size(), 32U);
    for (int place = 0; place < 32; ++place) {
      EXPECT_EQ(orders.at(layer)[static_cast<std::size_t>(place)] / 8,
                orders.at(layer)[static_cast<std::size_t>(place / 8 * 8)] / 8);
    }
  }
  EXPECT_EQ(ordered_popularity({1, 4, 3, 3}, 2), (std::vector<double>{3, 3, 4, 1}));
  EXPECT_EQ(ordered_popularity({1, 4, 3, 2}, 1), (std::vector<double>{4, 3, 2, 1}));
}

TEST(ExpertOrders, RefusesWhatIsNoCorrelation) {
  EXPECT_THROW(ExpertOrders(8, 1, 1, {1.5, 0}, 1), InputError);
  EXPECT_THROW(ExpertOrders(8, 1, 1, {0, -0.1}, 1), InputError);
  EXPECT_THROW(ExpertOrders(8, 3, 1, {}, 1), InputError);
  EXPECT_THROW(ExpertOrders(8, 1, 0, {}, 1), InputError);
}

}  // namespace
}  // namespace moecast
