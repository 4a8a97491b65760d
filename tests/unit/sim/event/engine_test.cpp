// Tasks and shared resources: hand-worked cases, and a plain progressive filling as the oracle.
#include "sim/event/engine.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/core/statistics.h"
#include "models/routing/load.h"
#include "models/routing/random.h"

namespace moecast {
namespace {

Demand demand(double amount, std::span<const int> resources, double bound = std::numeric_limits<double>::infinity()) {
  return {amount, bound, resources};
}

EventTimes events(const EventGraph& graph) {
  const EventGraph* one = &graph;
  return simulate_events(std::span(&one, 1)).front();
}

/// The same by progressive filling from one completion to the next.
double oracle_makespan(const EventGraph& graph) {
  std::vector<EventGraph::StoredDemand> active;
  for (int task = 0; task < graph.tasks(); ++task) {
    for (const EventGraph::StoredDemand& one : graph.demands(task)) active.push_back(one);
  }
  double now = 0;
  while (!active.empty()) {
    const std::vector<double> rates = max_min_rates(graph, active);
    double step = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < active.size(); ++i) step = std::min(step, active[i].amount / rates[i]);
    now += step;
    std::vector<EventGraph::StoredDemand> left;
    for (std::size_t i = 0; i < active.size(); ++i) {
      active[i].amount -= rates[i] * step;
      if (active[i].amount > 1e-6) left.push_back(active[i]);
    }
    active = std::move(left);
  }
  return now;
}

Cluster switch_of(int ranks) {
  return parse_cluster_text(
      R"({"schema_version":1,"name":"x","devices_per_node":)" + std::to_string(ranks) +
          R"(,"most_nodes":1,"scale_up":{"kind":"switch","bandwidth":{"value":450e9,"unit":"B/s","origin":"datasheet",
          "source":"x"}},"scale_out":{"kind":"none"}})",
      "x");
}

TEST(EventEngine, ACleanLinkTakesStartAndBytesOverBandwidth) {
  // SimGrid's defaults model TCP and would say 29 us: they must stay off.
  EventGraph graph;
  const std::vector<int> route{graph.add_resource("out", 450e9), graph.add_resource("in", 450e9)};
  const std::vector<Demand> flow{demand(4.5e6, route)};
  graph.add_task(TaskKind::dispatch, 0, 0, 6.56e-6, flow, {});
  EXPECT_NEAR(events(graph).makespan_s, 16.56e-6, 16.56e-12);
  EventTimes alone;
  EXPECT_TRUE(schedule_alone(graph, alone));
  EXPECT_NEAR(alone.makespan_s, 16.56e-6, 1e-15);
}

TEST(EventEngine, TwoKernelsShareTheMemoryBus) {
  EventGraph graph;
  const std::vector<int> bus{graph.add_resource("memory", 3e12)};
  const std::vector<Demand> large{demand(6e9, bus)}, small{demand(3e9, bus, 2e12)};
  graph.add_task(TaskKind::kernel, 0, 0, 0, large, {});
  graph.add_task(TaskKind::kernel, 0, 1, 0, small, {});
  // Half each until the small one is done at 2 ms, then the large one alone.
  const EventTimes times = simulate(graph);
  EXPECT_TRUE(times.contended);
  EXPECT_NEAR(times.end_s[1], 2e-3, 2e-9);
  EXPECT_NEAR(times.end_s[0], 3e-3, 3e-9);
}

TEST(EventEngine, AFlowOverSeveralLinksKeepsToItsRate) {
  EventGraph graph;
  const std::vector<int> route{graph.add_resource("out", 4e9), graph.add_resource("in", 4e9)};
  const std::vector<Demand> slow{demand(1e6, route, 1e9)}, fast{demand(3e6, route)};
  graph.add_task(TaskKind::transfer, 0, 0, 0, slow, {});
  graph.add_task(TaskKind::transfer, 0, 1, 0, fast, {});
  // 1 GB/s for the one, what it leaves for the other: both end after 1 ms.
  const EventTimes times = events(graph);
  EXPECT_NEAR(times.end_s[0], 1e-3, 1e-9);
  EXPECT_NEAR(times.end_s[1], 1e-3, 1e-9);
}

TEST(EventEngine, PartsOfAByteTakeTheirTimeBesideGigabytes) {
  for (const double other : {0.5, 1e9}) {
    EventGraph graph;
    const std::vector<int> one{graph.add_resource("a out", 1e9), graph.add_resource("a in", 1e9)};
    const std::vector<int> two{graph.add_resource("b out", 1e9), graph.add_resource("b in", 1e9)};
    const std::vector<Demand> little{demand(0.5, one)}, much{demand(other, two)};
    graph.add_task(TaskKind::transfer, 0, 0, 0, little, {});
    graph.add_task(TaskKind::transfer, 0, 1, 0, much, {});
    const EventTimes times = events(graph);
    EXPECT_NEAR(times.end_s[0], 0.5e-9, 1e-14);
    EXPECT_NEAR(times.end_s[1], other / 1e9, 1e-5 * other / 1e9);
  }
}

TEST(EventEngine, WhatIsLeftToOthersIsNobodyElses) {
  EventGraph graph;
  const std::vector<int> link{graph.add_resource("link", 1e9)};
  const std::vector<Demand> flow{demand(1e6, link)};
  graph.add_task(TaskKind::transfer, 0, 0, 0, flow, {});
  for (const double share : {0.1, 0.9, 0.5, 0.0}) {  // of the whole, each time
    graph.leave_to_others(link.front(), share);
    EXPECT_NEAR(simulate(graph).makespan_s, 1e-3 / (1 - share), 1e-15) << share;
    EXPECT_NEAR(events(graph).makespan_s, 1e-3 / (1 - share), 1e-9) << share;
  }
  EXPECT_THROW(graph.leave_to_others(link.front(), 1), InputError);
  EXPECT_THROW(graph.leave_to_others(1, 0.5), InputError);
}

TEST(EventEngine, StreamsAreChainsAndOverlapIsTwoOfThem) {
  EventGraph graph;
  const std::vector<int> bus{graph.add_resource("memory", 1e12)};
  const std::vector<int> link{graph.add_resource("link", 1e9)};
  const std::vector<Demand> kernel{demand(1e9, bus)}, send{demand(1e6, link)};
  const int first = graph.add_task(TaskKind::kernel, 0, 0, 0, kernel, {});
  graph.add_task(TaskKind::dispatch, 0, 1, 0, send, {});
  const std::vector<int> after{first};
  graph.add_task(TaskKind::kernel, 0, 0, 1e-4, kernel, after);
  const EventTimes times = simulate(graph);
  EXPECT_FALSE(times.contended);
  EXPECT_NEAR(times.makespan_s, 2.1e-3, 1e-12);
  EXPECT_NEAR(events(graph).makespan_s, 2.1e-3, 2.1e-9);
}

TEST(EventEngine, NothingToDoTakesNoTime) {
  EventGraph graph;
  const std::vector<int> link{graph.add_resource("link", 1e9)};
  const std::vector<Demand> none{demand(0, link)};
  const int task = graph.add_task(TaskKind::dispatch, 0, 0, 0, none, {});
  const std::vector<int> after{task};
  graph.add_task(TaskKind::combine, 0, 0, 0, none, after);
  EXPECT_EQ(events(graph).makespan_s, 0);
  EXPECT_EQ(simulate(graph).makespan_s, 0);
}

ByteMatrix routed(int ranks, double exponent, std::uint64_t seed) {
  const std::vector<double> popularity =
      expert_popularity({LoadKind::zipf, exponent, {}, seed}, static_cast<std::int64_t>(ranks) * 4);
  Random random(seed);
  ByteMatrix matrix(ranks);
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      double share = 0;
      for (int e = 0; e < 4; ++e) share += popularity[static_cast<std::size_t>((to * 7 % ranks) * 4 + e)];
      matrix.at(from, to) = std::floor(1e8 * share * (0.7 + 0.6 * random.uniform()));
    }
  }
  return matrix;
}

TEST(EventEngine, FlowsOverTheirLinksAgreeWithTheOracle) {
  for (const int ranks : {2, 3, 8}) {
    EventGraph graph;
    const Cluster cluster = switch_of(ranks);
    NetworkPorts network(graph, Topology(cluster, ranks, nullptr));
    graph.add_task(TaskKind::dispatch, -1, 0, 0, network.flows(routed(ranks, 1.0, 5)), {});
    const double oracle = oracle_makespan(graph);
    EXPECT_NEAR(events(graph).makespan_s, oracle, 1e-5 * oracle) << ranks;
  }
}

TEST(EventEngine, PortsAreTheExactMakespanOnMoeTraffic) {
  std::vector<double> errors;
  Random random(11);
  for (int trial = 0; trial < 100; ++trial) {
    const int ranks = 8 + static_cast<int>(random.below(25));
    const ByteMatrix matrix = routed(ranks, 1.5 * random.uniform(), static_cast<std::uint64_t>(trial));
    EventGraph graph;
    const Cluster cluster = switch_of(ranks);
    NetworkPorts network(graph, Topology(cluster, ranks, nullptr));
    graph.add_task(TaskKind::dispatch, -1, 0, 0, network.flows(matrix), {});
    const double exact = events(graph).makespan_s;
    errors.push_back(std::abs(network.bound_s(matrix) / exact - 1));
  }
  EXPECT_LE(quantile(errors, 1.0), 0.01);
  EXPECT_LE(median(errors), 0.001);
}

TEST(EventEngine, IsTheSameEveryTime) {
  EventGraph graph;
  const Cluster cluster = switch_of(8);
  NetworkPorts network(graph, Topology(cluster, 8, nullptr));
  graph.add_task(TaskKind::dispatch, -1, 0, 0, network.flows(routed(8, 1, 3)), {});
  EXPECT_EQ(events(graph).end_s, events(graph).end_s);
}

TEST(EventGraph, RefusesWhatCannotRun) {
  EventGraph graph;
  EXPECT_THROW(graph.add_resource("dead", 0), InputError);
  const std::vector<int> unknown{3}, none{};
  const std::vector<Demand> bad{demand(1, unknown)}, negative{demand(-1, unknown)};
  EXPECT_THROW(graph.add_task(TaskKind::kernel, 0, 0, 0, bad, {}), InputError);
  EXPECT_THROW(graph.add_task(TaskKind::kernel, 0, 0, 0, negative, {}), InputError);
  EXPECT_THROW(graph.add_task(TaskKind::kernel, 0, 0, -1, {}, {}), InputError);
  EXPECT_THROW(graph.add_task(TaskKind::kernel, 0, 0, 0, {}, unknown), InputError);
}

}  // namespace
}  // namespace moecast
