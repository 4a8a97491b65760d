#include "sim/event/graph_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/plan/graph.h"
#include "sim/cost/calibration.h"
#include "sim/event/engine.h"

namespace moecast {
namespace {

OperatorTime time(double latency, double memory) {
  OperatorTime t;
  t.latency = Seconds(latency);
  t.memory = Seconds(memory);
  return t;
}

Operator op(const char* name, int stream = 0, std::vector<int> depends_on = {}) {
  Operator o;
  o.name = name;
  o.stream = stream;
  o.depends_on = std::move(depends_on);
  return o;
}

TEST(GraphEngine, AgreesWithTheClosedFormWhereNothingIsShared) {
  const std::string data = MOECAST_SOURCE_DIR;
  const std::string folder = data + "/hwprofiles/intel-xeon-processor-2cpu";
  const auto model = make_cost_model(std::make_shared<const Calibration>(read_calibration(folder)));
  for (const char* name : {"olmoe-1b-7b", "mixtral-8x7b"}) {
    const Architecture architecture = load_zoo(data + "/models/zoo", name);
    for (const Phase phase : {Phase::decode, Phase::prefill}) {
      Deployment deployment;
      deployment.backend = "onednn";
      deployment.dtype = DType::fp32;
      Workload workload;
      workload.phase = phase;
      workload.batch = 4;
      workload.prompt = phase == Phase::prefill ? 64 : 1;
      workload.context = phase == Phase::decode ? 256 : 0;
      const OperatorGraph graph = build_graph(architecture, deployment, workload);
      std::vector<OperatorTime> times;
      for (const Operator& o : graph.operators) times.push_back(time_of(o, graph, deployment, *model));
      const Prediction closed = evaluate(graph, deployment, workload, *model, {}, {});
      for (const double bandwidth : {0.0, 1e10, 1e11}) {
        const EventTimes events = simulate(event_graph_of(graph, times, {bandwidth, 0}));
        EXPECT_FALSE(events.contended);
        EXPECT_NEAR(events.makespan_s / closed.latency->value(), 1, 1e-3) << name;
      }
    }
  }
}

TEST(GraphEngine, KernelsOfTwoStreamsShareTheMemoryBus) {
  OperatorGraph graph;
  graph.operators = {op("a", 0), op("b", 1)};
  const auto makespan = [&](double memory) {
    const std::vector<OperatorTime> times{time(1e-3, memory), time(1e-3, memory)};
    return simulate(event_graph_of(graph, times, {1e12, 0})).makespan_s;
  };
  EXPECT_NEAR(makespan(1e-3), 2e-3, 1e-8) << "each alone fills the bus";
  EXPECT_NEAR(makespan(0.75e-3), 1.5e-3, 1e-8);
  EXPECT_NEAR(makespan(0.5e-3), 1e-3, 1e-8) << "there is room for both";
  EXPECT_NEAR(makespan(0), 1e-3, 1e-12);
}

TEST(GraphEngine, TheHostRunsAheadUntilLaunchesLimit) {
  OperatorGraph graph;
  for (int i = 0; i < 10; ++i) graph.operators.push_back(op("kernel"));
  const auto makespan = [&](double kernel, double launch) {
    const std::vector<OperatorTime> times(10, time(kernel, 0));
    return simulate(event_graph_of(graph, times, {0, launch})).makespan_s;
  };
  EXPECT_NEAR(makespan(10e-6, 4e-6), 4e-6 + 10 * 10e-6, 1e-12);
  EXPECT_NEAR(makespan(3e-6, 4e-6), 10 * 4e-6 + 3e-6, 1e-12);
}

TEST(GraphEngine, WaitsForWhatItDependsOn) {
  OperatorGraph graph;
  graph.operators = {op("shared", 1), op("dispatch", 0), op("join", 0, {0})};
  const std::vector<OperatorTime> times{time(5e-6, 0), time(2e-6, 0), time(1e-6, 0)};
  EXPECT_NEAR(simulate(event_graph_of(graph, times, {})).makespan_s, 6e-6, 1e-15);
  graph.operators[0].depends_on = {2};
  EXPECT_THROW(event_graph_of(graph, times, {}), InputError);
  EXPECT_THROW(event_graph_of(graph, std::vector<OperatorTime>(2), {}), InputError);
}

/// Ports of 100 GB/s, NICs of 10 GB/s.
Topology wires(int ranks, int per_node = 4) {
  const std::string node = std::to_string(per_node);
  return Topology(
      parse_cluster_text(R"({"schema_version":1,"name":"x","devices_per_node":)" + node + R"(,"most_nodes":4,
      "scale_up":{"kind":"switch","bandwidth":{"value":100e9,"unit":"B/s","origin":"datasheet","source":"x"}},
      "scale_out":{"kind":"switch","bandwidth":{"value":10e9,"unit":"B/s","origin":"datasheet","source":"x"}}})",
                         "x"),
      ranks, nullptr);
}

Deployment of(int tp, int dp, int ep) {
  Deployment d;
  d.tp = tp;
  d.dp = dp;
  d.ep = ep;
  return d;
}

Operator collective(OperatorKind kind, int stream = 0) {
  Operator o = op("collective", stream);
  o.kind = kind;
  o.shape.bytes = 100'000'000;
  return o;
}

/// 2 ms by law, of which 0.5 ms before bytes flow.
double with_links(const OperatorGraph& graph, const Deployment& deployment, Topology topology, double background = 0) {
  GraphNetwork network{std::move(topology), deployment, [](int size) { return wires(size); },
                       [](const Operator&) { return 0.5e-3; }, background};
  const std::vector<OperatorTime> times(graph.operators.size(), time(2e-3, 0));
  const EventGraph events = event_graph_of(graph, times, {0, 0, std::move(network)});
  const EventTimes done = simulate(events);
  return *std::max_element(done.end_s.begin(), done.end_s.begin() + static_cast<int>(graph.operators.size()));
}

constexpr OperatorKind kCollectives[] = {OperatorKind::all_reduce,     OperatorKind::all_gather,
                                         OperatorKind::reduce_scatter, OperatorKind::all_to_all_dispatch,
                                         OperatorKind::point_to_point, OperatorKind::weight_transfer};

TEST(GraphEngine, ACollectiveAloneTakesWhatItsLawSays_B11) {
  for (const OperatorKind kind : kCollectives) {
    OperatorGraph graph;
    graph.operators = {collective(kind), op("kernel"), collective(kind)};
    const Deployment spread = kind == OperatorKind::all_reduce ? of(4, 1, 4) : of(1, 4, 4);
    EXPECT_NEAR(with_links(graph, spread, wires(4)), 6e-3, 1e-9) << to_string(kind);
  }
}

TEST(GraphEngine, CollectivesOfTwoStreamsShareTheLinks) {
  for (const OperatorKind kind : kCollectives) {
    OperatorGraph graph;
    graph.operators = {collective(kind, 0), collective(kind, 1)};
    const Deployment spread = kind == OperatorKind::all_reduce ? of(4, 1, 4) : of(1, 4, 4);
    // Bytes flow for 1.5 ms alone, and at half the rate for both.
    EXPECT_NEAR(with_links(graph, spread, wires(4)), 3.5e-3, 1e-8) << to_string(kind);
  }
  OperatorGraph ways;  // out of the even ranks and round the ring of all: where both go, half of each link is theirs
  ways.operators = {collective(OperatorKind::point_to_point, 0), collective(OperatorKind::all_gather, 1)};
  EXPECT_NEAR(with_links(ways, of(1, 4, 4), wires(4)), 3.5e-3, 1e-8);
}

TEST(GraphEngine, ADegradedLinkAndOthersTrafficSlowCollectives) {
  OperatorGraph graph;
  graph.operators = {collective(OperatorKind::all_reduce)};
  Topology degraded = wires(4);
  degraded.scale_link("rank 2 port in", 0.5);
  EXPECT_NEAR(with_links(graph, of(4, 1, 4), degraded), 3.5e-3, 1e-9);
  EXPECT_NEAR(with_links(graph, of(4, 1, 4), wires(4), 0.5), 3.5e-3, 1e-8);
}

TEST(GraphEngine, RanksThatLieApartAreReducedOverTheirNics) {
  OperatorGraph graph;
  graph.operators = {collective(OperatorKind::reduce_scatter)};
  // Pairs of data-parallel ranks four apart, on two nodes: 10 GB/s where the law was measured at 100 GB/s.
  EXPECT_NEAR(with_links(graph, of(4, 2, 8), wires(8)), 0.5e-3 + 15e-3, 1e-9);
  // Two apart they are neighbours' neighbours in a node: as measured.
  EXPECT_NEAR(with_links(graph, of(2, 2, 4), wires(4)), 2e-3, 1e-9);
}

}  // namespace
}  // namespace moecast
