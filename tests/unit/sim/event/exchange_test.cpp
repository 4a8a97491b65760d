// Exchanges as rounds: hand-worked times, the closed form against SimGrid, bytes that nobody loses.
#include "sim/event/exchange.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>

#include "models/core/error.h"
#include "models/routing/load.h"
#include "models/routing/random.h"
#include "models/routing/traffic.h"
#include "sim/event/engine.h"

namespace moecast {
namespace {

constexpr std::array kAlgorithms{ExchangeAlgorithm::direct, ExchangeAlgorithm::pairwise, ExchangeAlgorithm::ring,
                                 ExchangeAlgorithm::hierarchical, ExchangeAlgorithm::all_gather};
/// SimGrid adds up in microseconds with a precision of 1e-9 of each: a clean link is exact to a millionth.
constexpr double kExact = 1e-6;
/// What the two engines may differ by where nothing else runs.
constexpr double kAgreement = 1e-3;

std::string quantity(double bandwidth) {
  return R"({"value":)" + std::to_string(bandwidth) + R"(,"unit":"B/s","origin":"datasheet","source":"x"})";
}

/// @param out  of the scale-out fabric, from its kind on.
Topology nodes_of(int per_node, int nodes, const std::string& out, double port = 1e9) {
  const std::string up =
      per_node > 1 ? R"({"kind":"switch","bandwidth":)" + quantity(port) + "}" : R"({"kind":"none"})";
  return Topology(parse_cluster_text(R"({"schema_version":1,"name":"x","devices_per_node":)" +
                                         std::to_string(per_node) + R"(,"most_nodes":)" + std::to_string(nodes) +
                                         R"(,"scale_up":)" + up + R"(,"scale_out":{"kind":)" + out + "}}",
                                     "x"),
                  per_node * nodes, nullptr);
}

Topology switch_of(int ranks) { return nodes_of(ranks, 1, R"("none")"); }

/// Every rank has a megabyte for every other.
ByteMatrix a_megabyte_each(int ranks) { return ByteMatrix::uniform(ranks, 1e6 * ranks); }

ByteMatrix skewed(int ranks, double exponent, std::uint64_t seed) {
  const std::vector<double> popularity = expert_popularity({LoadKind::zipf, exponent, {}, 1}, ranks);
  Random random(seed);
  ByteMatrix matrix(ranks);
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      matrix.at(from, to) =
          std::floor(1e8 * popularity[static_cast<std::size_t>(to * 7 % ranks)] * (0.7 + 0.6 * random.uniform()));
    }
  }
  return matrix;
}

double closed_s(const Topology& topology, const ExchangeRounds& rounds, double round_s = 0) {
  EventGraph graph;
  NetworkPorts ports(graph, topology);
  return cost_of_rounds(ports, rounds, topology.ranks_per_node(), round_s).seconds;
}

double events_s(const Topology& topology, const ExchangeRounds& rounds, FlowModel model, double round_s = 0) {
  EventGraph graph;
  NetworkPorts ports(graph, topology);
  add_rounds(graph, ports, rounds, TaskKind::dispatch, 0, 0, round_s, 1, model, {});
  const EventGraph* one = &graph;
  return simulate_events(std::span(&one, 1)).front().makespan_s;
}

TEST(Exchange, HandWorkedOnOneSwitch) {
  const Topology topology = switch_of(4);  // ports of 1 GB/s: a megabyte takes 1 ms
  const ByteMatrix bytes = a_megabyte_each(4);
  const std::map<ExchangeAlgorithm, double> worked{
      {ExchangeAlgorithm::direct, 10e-6 + 3e-3},             // a port carries 3 MB
      {ExchangeAlgorithm::pairwise, 3 * (10e-6 + 1e-3)},     // one megabyte a round
      {ExchangeAlgorithm::ring, 3 * 10e-6 + 6e-3},           // 3, 2 and 1 MB to the next rank
      {ExchangeAlgorithm::hierarchical, 10e-6 + 3e-3},       // one node: as direct
      {ExchangeAlgorithm::all_gather, 3 * (10e-6 + 1e-3)}};  // a block of 1 MB a round
  for (const auto& [algorithm, seconds] : worked) {
    const ExchangeRounds rounds = all_to_all_rounds(algorithm, bytes, 4);
    EXPECT_NEAR(closed_s(topology, rounds, 10e-6), seconds, kExact * seconds) << to_string(algorithm);
    for (const FlowModel model : {FlowModel::port, FlowModel::exact}) {
      EXPECT_NEAR(events_s(topology, rounds, model, 10e-6), seconds, kExact * seconds) << to_string(algorithm);
    }
    EXPECT_EQ(find_exchange_algorithm(to_string(algorithm)), algorithm);
  }
}

TEST(Exchange, HandWorkedOverNodes) {
  // Two nodes of two: 1 GB/s inside, NICs of 0.5 GB/s, one a rank.
  const Topology topology = nodes_of(2, 2, R"("switch","bandwidth":)" + quantity(0.5e9));
  const ByteMatrix bytes = a_megabyte_each(4);
  // Two megabytes leave through each NIC: 4 ms. Beside them, one crosses the node.
  const ExchangeRounds direct = all_to_all_rounds(ExchangeAlgorithm::direct, bytes, 2);
  EXPECT_NEAR(closed_s(topology, direct), 4e-3, kExact * 4e-3);
  // The same two for the rank of the same index; then a megabyte of its own and one that it passes on: 2 ms.
  const ExchangeRounds two_level = all_to_all_rounds(ExchangeAlgorithm::hierarchical, bytes, 2);
  ASSERT_EQ(two_level.size(), 2U);
  EXPECT_NEAR(closed_s(topology, two_level), 6e-3, kExact * 6e-3);
  EXPECT_NEAR(events_s(topology, two_level, FlowModel::exact), 6e-3, kExact * 6e-3);
  EventGraph graph;
  NetworkPorts ports(graph, topology);
  EXPECT_EQ(cost_of_rounds(ports, direct, 2, 0).between_nodes, 8e6);
  EXPECT_EQ(cost_of_rounds(ports, two_level, 2, 0).between_nodes, 8e6) << "the same bytes, fewer messages";
  EXPECT_EQ(two_level.front().size(), 4U);
}

TEST(Exchange, CollectivesTakeWhatTheirFormulasSay) {
  constexpr int kRanks = 8;
  const Topology topology = switch_of(kRanks);
  const double bytes = 8e6;
  const double step = 5e-6;
  const std::vector<double> blocks(kRanks, bytes / kRanks);
  const double each = step + bytes / kRanks / 1e9;  // of n - 1 steps
  for (const FlowModel model : {FlowModel::port, FlowModel::exact}) {
    EXPECT_NEAR(events_s(topology, all_gather_rounds(blocks), model, step) / (7 * each), 1, kExact);
    EXPECT_NEAR(events_s(topology, reduce_scatter_rounds(blocks), model, step) / (7 * each), 1, kExact);
    EXPECT_NEAR(events_s(topology, all_reduce_rounds(kRanks, bytes), model, step) / (14 * each), 1, kExact);
    EXPECT_NEAR(events_s(topology, ExchangeRounds{ExchangeRound{{2, 5, bytes}}}, model, step) / (step + bytes / 1e9), 1,
                kExact);
    // Weights of an expert from rank 0 to all others: its port sends seven times as much.
    ExchangeRound weights;
    for (int to = 1; to < kRanks; ++to) weights.push_back({0, to, bytes});
    EXPECT_NEAR(events_s(topology, ExchangeRounds{weights}, model, step) / (step + 7 * bytes / 1e9), 1, kExact);
  }
}

TEST(Exchange, ClosedFormIsTheEngineWhenNothingElseRuns_B11) {
  const std::vector<Topology> topologies{
      switch_of(8), nodes_of(4, 4, R"("rail_optimised","bandwidth":)" + quantity(0.25e9)),
      nodes_of(4, 4, R"("fat_tree","nodes_per_switch":2,"oversubscription":2,"bandwidth":)" + quantity(0.25e9)),
      nodes_of(1, 8, R"("dragonfly","nodes_per_switch":2,"bandwidth":)" + quantity(0.25e9))};
  for (const Topology& topology : topologies) {
    for (const ExchangeAlgorithm algorithm : kAlgorithms) {
      const auto rounds_of = [&](const ByteMatrix& bytes) {
        return all_to_all_rounds(algorithm, bytes, topology.ranks_per_node());
      };
      const ExchangeRounds even = rounds_of(a_megabyte_each(topology.ranks()));
      const double closed = closed_s(topology, even, 3e-6);
      EXPECT_NEAR(events_s(topology, even, FlowModel::port, 3e-6) / closed, 1, kExact) << to_string(algorithm);
      EXPECT_NEAR(events_s(topology, even, FlowModel::exact, 3e-6) / closed, 1, kAgreement) << to_string(algorithm);
      const ExchangeRounds uneven = rounds_of(skewed(topology.ranks(), 1.2, 7));
      EXPECT_NEAR(events_s(topology, uneven, FlowModel::port, 3e-6) / closed_s(topology, uneven, 3e-6), 1, kExact)
          << to_string(algorithm);
    }
  }
}

TEST(Exchange, RoundsOfPairsAreExactUnderSkew) {
  // One transfer a port and round: nothing is shared, so that the port model is the exact one.
  const Topology topology = switch_of(16);
  for (const std::uint64_t seed : {1, 2, 3}) {
    const ExchangeRounds rounds = all_to_all_rounds(ExchangeAlgorithm::pairwise, skewed(16, 1.0, seed), 16);
    EXPECT_NEAR(events_s(topology, rounds, FlowModel::exact) / closed_s(topology, rounds), 1, kExact);
  }
}

/// Whose bytes reach whom: replays rounds that pass blocks on.
RC_GTEST_PROP(Exchange, PairwiseAndDirectMoveTheMatrixAndNothingElse, ()) {
  const int ranks = *rc::gen::inRange(1, 9);
  const auto cells =
      *rc::gen::container<std::vector<int>>(static_cast<std::size_t>(ranks * ranks), rc::gen::inRange(0, 4));
  const ByteMatrix bytes(ranks, std::vector<double>(cells.begin(), cells.end()));
  for (const ExchangeAlgorithm algorithm : {ExchangeAlgorithm::direct, ExchangeAlgorithm::pairwise}) {
    ByteMatrix moved(ranks);
    for (const ExchangeRound& round : all_to_all_rounds(algorithm, bytes, 1)) {
      for (const Transfer& t : round) moved.at(t.from, t.to) += t.bytes;
    }
    for (int from = 0; from < ranks; ++from) {
      for (int to = 0; to < ranks; ++to) RC_ASSERT(from == to || moved.at(from, to) == bytes.at(from, to));
    }
  }
  // Around the ring every byte takes as many hops as its receiver is ahead.
  double hops = 0;
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) hops += bytes.at(from, to) * ((to - from + ranks) % ranks);
  }
  double carried = 0;
  for (const ExchangeRound& round : all_to_all_rounds(ExchangeAlgorithm::ring, bytes, 1)) {
    for (const Transfer& t : round) {
      RC_ASSERT(t.to == (t.from + 1) % ranks);
      carried += t.bytes;
    }
  }
  RC_ASSERT(std::abs(carried - hops) < 1e-9);
}

RC_GTEST_PROP(Exchange, TwoLevelsCarryNoMoreBetweenNodesThanFlat_B10, ()) {
  const int per_node = *rc::gen::inRange(1, 4);
  const int ranks = per_node * *rc::gen::inRange(1, 4);
  const int top_k = *rc::gen::inRange(1, 4);
  RoutingPolicy policy;
  policy.top_k = top_k;
  Random random(*rc::gen::inRange<std::uint64_t>(0, 1000));
  Assignment assignment;
  Router(policy, std::vector<double>(static_cast<std::size_t>(ranks * 4), 1.0)).draw(50, random, assignment);
  const auto count = [&](Deduplication deduplication) {
    Traffic traffic;
    TrafficCounter(contiguous_placement(ranks * 4, ranks), {deduplication, per_node, 1.0, false})
        .count(assignment, traffic);
    return traffic;
  };
  const Traffic flat = count(Deduplication::per_rank);
  const Traffic levels = count(Deduplication::per_node);
  const auto between = [&](const ByteMatrix& matrix, ExchangeAlgorithm algorithm) {
    double sum = 0;
    for (const ExchangeRound& round : all_to_all_rounds(algorithm, matrix, per_node)) {
      for (const Transfer& t : round) sum += t.from / per_node == t.to / per_node ? 0 : t.bytes;
    }
    return sum;
  };
  const double direct = between(flat.all(), ExchangeAlgorithm::direct);
  // Without regard to who wants the same token: as many bytes. A token once a node: no more.
  RC_ASSERT(between(flat.all(), ExchangeAlgorithm::hierarchical) == direct);
  RC_ASSERT(between(levels.all(), ExchangeAlgorithm::hierarchical) <= direct);
  // A matrix that goes through nodes already is left as it is.
  const ByteMatrix once = through_nodes(flat.all(), per_node);
  const ByteMatrix twice = through_nodes(once, per_node);
  RC_ASSERT(std::ranges::equal(once.values(), twice.values()));
}

TEST(Exchange, ReplicasGatherAmongRanksOfOneIndexAndReduceInside) {
  // Four replicas of two ranks; every rank has 10 bytes for each other: a replica 20.
  ByteMatrix bytes(8);
  for (int from = 0; from < 8; ++from) {
    for (int to = 0; to < 8; ++to) bytes.at(from, to) = from == to ? 0 : 10;
  }
  const ExchangeRounds there = all_to_all_rounds(ExchangeAlgorithm::gather_reduce, bytes, 4, 2);
  ASSERT_EQ(there.size(), 3U);
  for (const ExchangeRound& round : there) {
    ASSERT_EQ(round.size(), 8U);
    for (const Transfer& t : round) {
      EXPECT_EQ(t.to, (t.from + 2) % 8) << "the next replica, the same index";
      EXPECT_EQ(t.bytes, 20);
    }
  }
  const ExchangeRounds back = way_back_rounds(ExchangeAlgorithm::gather_reduce, bytes, 4, 2);
  ASSERT_EQ(back.size(), 3U + 2U);
  for (std::size_t i = 3; i < 5; ++i) {
    ASSERT_EQ(back[i].size(), 8U);
    for (const Transfer& t : back[i]) {
      EXPECT_EQ(t.to / 2, t.from / 2) << "inside the replica";
      EXPECT_NE(t.to, t.from);
      EXPECT_EQ(t.bytes, 10);
    }
  }
  const auto alike = [](const ExchangeRounds& a, const ExchangeRounds& b) {
    return std::ranges::equal(a, b, [](const ExchangeRound& x, const ExchangeRound& y) {
      return std::ranges::equal(x, y, [](const Transfer& s, const Transfer& t) {
        return s.from == t.from && s.to == t.to && s.bytes == t.bytes;
      });
    });
  };
  EXPECT_TRUE(alike(all_to_all_rounds(ExchangeAlgorithm::gather_reduce, bytes, 4, 1),
                    all_to_all_rounds(ExchangeAlgorithm::all_gather, bytes, 4)));
  EXPECT_TRUE(all_to_all_rounds(ExchangeAlgorithm::gather_reduce, bytes, 4, 8).empty());
  EXPECT_THROW(all_to_all_rounds(ExchangeAlgorithm::gather_reduce, bytes, 4, 3), InputError);
}

TEST(Exchange, TheWayBackOfAnAllGatherIsAReduceScatter) {
  const std::vector<double> blocks{1, 2, 3};
  const ExchangeRounds gather = all_gather_rounds(blocks);
  const ExchangeRounds scatter = reduce_scatter_rounds(blocks);
  EXPECT_EQ(reversed(scatter), gather);
  // Block r ends on rank r: the last round carries it there.
  for (const Transfer& t : scatter.back()) EXPECT_EQ(t.bytes, blocks[static_cast<std::size_t>(t.to)]);
}

TEST(Exchange, TheServersLinkLimitsAParameterServerOfManyWorkers_C9) {
  // A server with ten times the link of its workers: up to ten of them fill their own links, more fill its link.
  const double worker = 0.1e9;
  for (const int workers : {2, 5, 20, 60}) {
    Topology topology = nodes_of(1, workers + 1, R"("switch","bandwidth":)" + quantity(worker));
    topology.scale_link("nic 0 in", 10);
    topology.scale_link("nic 0 out", 10);
    const ExchangeRounds rounds = parameter_server_rounds(workers + 1, 0, 1e6);
    EventGraph graph;
    NetworkPorts ports(graph, topology);
    const RoundsCost cost = cost_of_rounds(ports, ExchangeRounds{rounds.front()}, 1, 0);
    const double push = std::max(1e6 / worker, workers * 1e6 / (10 * worker));
    EXPECT_NEAR(cost.seconds, push, kExact * push);
    EXPECT_NEAR(events_s(topology, rounds, FlowModel::exact), 2 * push, kAgreement * push) << "push and pull";
    // Busiest is what takes longest, not what carries most.
    EXPECT_EQ(topology.links()[static_cast<std::size_t>(cost.busiest_link)].name,
              workers > 10 ? "nic 0 in" : "nic 1 out");
    EXPECT_EQ(cost.busiest_bytes, workers > 10 ? 1e6 * workers : 1e6);
  }
}

TEST(Exchange, RefusesWhatIsNoExchange) {
  EXPECT_THROW(all_to_all_rounds(ExchangeAlgorithm::hierarchical, a_megabyte_each(4), 0), InputError);
  EXPECT_THROW(all_gather_rounds({}), InputError);
  EXPECT_THROW(all_gather_rounds(std::vector<double>{1, -1}), InputError);
  EXPECT_THROW(parameter_server_rounds(1, 0, 1), InputError);
  EXPECT_THROW(parameter_server_rounds(4, 4, 1), InputError);
  EventGraph graph;
  NetworkPorts ports(graph, switch_of(4));
  EXPECT_THROW(ports.demands(ExchangeRound{{0, 4, 1}}), InputError) << "a rank that is not there";
  EXPECT_THROW(ports.demands(ExchangeRound{{2, 2, 1}}), InputError) << "no link to oneself";
  EXPECT_EQ(find_exchange_algorithm("rings"), std::nullopt);
}

}  // namespace
}  // namespace moecast
