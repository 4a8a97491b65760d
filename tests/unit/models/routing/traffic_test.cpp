#include "models/routing/traffic.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "models/core/error.h"
#include "models/routing/load.h"
#include "models/routing/metrics.h"

namespace moecast {
namespace {

std::vector<double> zipf(int experts, double exponent) {
  return expert_popularity({LoadKind::zipf, exponent, {}, 1}, experts);
}

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

/// Every choice of k distinct experts with its probability under successive draws.
template <typename Visit>
void enumerate(const std::vector<double>& popularity, int top_k, std::vector<int>& chosen, double probability,
               double left, const Visit& visit) {
  if (static_cast<int>(chosen.size()) == top_k) return visit(chosen, probability);
  for (int e = 0; e < std::ssize(popularity); ++e) {
    if (std::find(chosen.begin(), chosen.end(), e) != chosen.end()) continue;
    const double weight = popularity[static_cast<std::size_t>(e)];
    chosen.push_back(e);
    enumerate(popularity, top_k, chosen, probability * weight / left, left - weight, visit);
    chosen.pop_back();
  }
}

TEST(ExpectedTraffic, AgreesWithEveryChoiceEnumerated) {
  for (const double exponent : {0.0, 0.8}) {
    const std::vector<double> popularity = zipf(12, exponent);
    const Placement placement = contiguous_placement(12, 4);
    const std::vector<double> tokens{10, 20, 0, 5};
    const Traffic traffic = expected_traffic(popularity, 3, tokens, placement, {Deduplication::per_rank, 2, 100});
    std::vector<double> reached(4, 0);
    std::vector<int> chosen;
    enumerate(popularity, 3, chosen, 1, 1, [&](const std::vector<int>& experts, double probability) {
      std::set<int> ranks;
      for (const int e : experts) ranks.insert(e / 3);
      for (const int rank : ranks) reached[static_cast<std::size_t>(rank)] += probability;
    });
    constexpr double tolerance = 1e-3;
    for (int sender = 0; sender < 4; ++sender) {
      for (int receiver = 0; receiver < 4; ++receiver) {
        const double expected =
            tokens[static_cast<std::size_t>(sender)] * 100 * reached[static_cast<std::size_t>(receiver)];
        EXPECT_NEAR(traffic.all().at(sender, receiver), expected, tolerance * expected + 1e-12);
      }
    }
  }
}

/// All ports together within 1 %; one port within what 25,000 tokens can show.
void expect_close(const ByteMatrix& drawn, const ByteMatrix& expected) {
  constexpr double tolerance = 0.03;
  EXPECT_NEAR(drawn.total(), expected.total(), 0.01 * expected.total());
  for (int rank = 0; rank < drawn.ranks(); ++rank) {
    EXPECT_NEAR(drawn.egress(rank), expected.egress(rank), tolerance * expected.egress(rank) + 1e-9);
    EXPECT_NEAR(drawn.ingress(rank), expected.ingress(rank), tolerance * expected.ingress(rank) + 1e-9);
  }
}

TEST(ExpectedTraffic, IsTheMeanOfDrawnTraffic) {
  constexpr int kRanks = 16;
  constexpr int kTokens = 400'000;
  for (const double exponent : {0.0, 0.6, 1.0}) {
    for (const auto kind : {Deduplication::per_expert, Deduplication::per_rank, Deduplication::per_node}) {
      const std::vector<double> popularity = zipf(128, exponent);
      const TrafficOptions options{kind, 4, 10};
      const Placement placement = round_robin_placement(128, kRanks);
      RoutingPolicy policy;
      policy.top_k = 8;
      Router router(policy, popularity);
      Random random(3);
      Assignment assignment;
      router.draw(kTokens, random, assignment);
      TrafficCounter counter(placement, options);
      Traffic drawn;
      counter.count(assignment, drawn);
      const std::vector<double> tokens(kRanks, static_cast<double>(kTokens) / kRanks);
      const Traffic expected = expected_traffic(popularity, 8, tokens, placement, options);
      expect_close(drawn.inside, expected.inside);
      expect_close(drawn.across, expected.across);
      for (std::size_t r = 0; r < kRanks; ++r) {
        EXPECT_NEAR(drawn.rows_per_rank[r], expected.rows_per_rank[r], 0.01 * expected.rows_per_rank[r]);
      }
    }
  }
}

/// Experts with one to three copies on ten ranks.
Placement with_copies() { return Placement(10, {{0, 4, 7}, {1, 6}, {2, 3}, {3}, {4}, {5}, {6, 9}, {7}, {8}, {9}}); }

TEST(ExpectedTraffic, CopiesOfAnExpertAreNeverReachedTogether) {
  // Every choice of experts, and of one copy of each.
  const std::vector<double> popularity = zipf(10, 1.2);
  const Placement placement = with_copies();
  std::vector<double> reached(10, 0);
  std::vector<int> chosen;
  enumerate(popularity, 3, chosen, 1, 1, [&](const std::vector<int>& experts, double probability) {
    for (int rank = 0; rank < 10; ++rank) {
      double missed = 1;
      for (const int e : experts) {
        const auto copies = placement.ranks_of(e);
        if (std::ranges::find(copies, rank) != copies.end()) missed *= 1 - 1.0 / static_cast<double>(copies.size());
      }
      reached[static_cast<std::size_t>(rank)] += probability * (1 - missed);
    }
  });
  const Traffic traffic =
      expected_traffic(popularity, 3, std::vector<double>(10, 1.0), placement, {Deduplication::per_rank, 4, 1});
  constexpr double tolerance = 1e-4;  // of the quadrature
  for (std::size_t r = 0; r < 10; ++r) EXPECT_NEAR(traffic.tokens_per_rank[r], 10 * reached[r], tolerance * 10) << r;
}

TEST(ExpectedTraffic, IsTheMeanOfDrawnTrafficWithCopies_B5) {
  constexpr int kTokens = 40;
  constexpr int kSamples = 40'000;
  const std::vector<double> popularity = zipf(10, 1);
  const Placement placement = with_copies();
  RoutingPolicy policy;
  policy.top_k = 3;
  for (const auto kind : {Deduplication::per_expert, Deduplication::per_rank, Deduplication::per_node}) {
    const TrafficOptions options{kind, 4, 1};
    Router router(policy, popularity);
    TrafficCounter counter(placement, options);
    Random random(5);
    Random turns(6);
    Assignment assignment;
    Traffic traffic;
    ByteMatrix mean(10);
    for (int sample = 0; sample < kSamples; ++sample) {
      router.draw(kTokens, random, assignment);
      counter.start_turns(turns);
      counter.count(assignment, traffic);
      const ByteMatrix all = traffic.all();
      for (int from = 0; from < 10; ++from) {
        for (int to = 0; to < 10; ++to) mean.at(from, to) += all.at(from, to) / kSamples;
      }
    }
    const ByteMatrix expected =
        expected_traffic(popularity, 3, std::vector<double>(10, kTokens / 10.0), placement, options).all();
    EXPECT_NEAR(mean.total() / expected.total(), 1, 0.002);
    for (int from = 0; from < 10; ++from) {
      for (int to = 0; to < 10; ++to) {
        // A percent, and five standard deviations of counting.
        const double cell = expected.at(from, to);
        EXPECT_NEAR(mean.at(from, to), cell, 0.01 * cell + 5 * std::sqrt(cell / kSamples)) << from << " " << to;
      }
    }
  }
}

TEST(Traffic, TurnsAreThoseOfTheirSeed_D3) {
  Assignment assignment{2, {0, 0, 0, 1, 1}, {0, 1, 2, 3, 4, 5}};
  const auto rows = [&](TrafficCounter& counter, std::uint64_t seed) {
    Random turns(seed);
    counter.start_turns(turns);
    Traffic traffic;
    counter.count(assignment, traffic);
    return traffic.rows_per_rank;
  };
  TrafficCounter fresh(Placement(3, {{0, 1, 2}, {1, 2}}), {Deduplication::per_rank, 3, 1});
  TrafficCounter used(Placement(3, {{0, 1, 2}, {1, 2}}), {Deduplication::per_rank, 3, 1});
  static_cast<void>(rows(used, 9));
  for (const std::uint64_t seed : {1, 2, 3}) EXPECT_EQ(rows(fresh, seed), rows(used, seed));
}

TEST(ExpectedTraffic, UniformTrafficHasEqualPorts_B11) {
  const std::vector<double> tokens(8, 100.0);
  const Traffic traffic =
      expected_traffic(zipf(64, 0), 4, tokens, contiguous_placement(64, 8), {Deduplication::per_expert, 8, 1});
  for (int rank = 0; rank < 8; ++rank) {
    EXPECT_NEAR(traffic.inside.egress(rank), 400 * 7 / 8.0, 1e-9);
    EXPECT_NEAR(traffic.inside.ingress(rank), 400 * 7 / 8.0, 1e-9);
  }
}

RC_GTEST_PROP(Traffic, NothingIsLostOrMadeUp_B11, ()) {
  const int ranks = *rc::gen::inRange(1, 9);
  const int experts = ranks * *rc::gen::inRange(1, 5);
  const int top_k = *rc::gen::inRange(1, experts + 1);
  const auto kind = *rc::gen::element(Deduplication::per_expert, Deduplication::per_rank, Deduplication::per_node);
  const int per_node = *rc::gen::inRange(1, ranks + 1);
  const int tokens = ranks * *rc::gen::inRange(1, 20);
  RoutingPolicy policy;
  policy.top_k = top_k;
  Router router(policy, zipf(experts, 1));
  Random random(static_cast<std::uint64_t>(tokens));
  Assignment assignment;
  router.draw(tokens, random, assignment);
  TrafficCounter counter(contiguous_placement(experts, ranks), {kind, per_node, 1});
  Traffic traffic;
  counter.count(assignment, traffic);
  RC_ASSERT(sum(traffic.rows_per_expert) == tokens * top_k);
  RC_ASSERT(sum(traffic.rows_per_rank) == tokens * top_k);
  double arrived = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    arrived += traffic.inside.at(rank, rank);
    RC_ASSERT(traffic.across.at(rank, rank) == 0);
  }
  // Copies that arrive, wherever they came from last; forwarded ones are not counted at the forwarder.
  const double copies = sum(traffic.tokens_per_rank);
  const double passed_on = kind == Deduplication::per_node ? 0 : traffic.across.total();
  RC_ASSERT(std::abs(arrived + traffic.inside.total() + passed_on - copies) < 1e-9);
  RC_ASSERT(copies <= tokens * std::min(top_k, kind == Deduplication::per_expert ? top_k : ranks));
}

TEST(Traffic, NodesReceiveATokenOnce_B10) {
  // Two nodes of two ranks; a token to all four experts of the other node crosses once.
  Assignment assignment{4, {0, 1, 2, 3}, {0, 4}};
  TrafficCounter flat(contiguous_placement(4, 4), {Deduplication::per_rank, 2, 1});
  TrafficCounter staged(contiguous_placement(4, 4), {Deduplication::per_node, 2, 1});
  Traffic direct, two_stages;
  flat.count(assignment, direct);
  staged.count(assignment, two_stages);
  EXPECT_EQ(direct.across.total(), 2);
  EXPECT_EQ(two_stages.across.total(), 1);
  EXPECT_EQ(two_stages.across.at(0, 2), 1);
  EXPECT_EQ(two_stages.inside.at(2, 3), 1);
  EXPECT_EQ(two_stages.inside.at(2, 2), 1);
}

TEST(Traffic, RefusesWhatDoesNotFit) {
  EXPECT_THROW(TrafficCounter(contiguous_placement(4, 4), {Deduplication::per_rank, 2, 0}), InputError);
  TrafficCounter counter(contiguous_placement(4, 4), {Deduplication::per_rank, 2, 1});
  Traffic traffic;
  EXPECT_THROW(counter.count(Assignment{8, {0}, {0, 1}}, traffic), InputError);
  EXPECT_THROW(expected_traffic(zipf(8, 0), 2, std::vector<double>(4, 1.0), contiguous_placement(4, 4),
                                {Deduplication::per_rank, 2, 1}),
               InputError);
}

}  // namespace
}  // namespace moecast
