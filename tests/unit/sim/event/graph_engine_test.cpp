#include "sim/event/graph_engine.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace moecast
