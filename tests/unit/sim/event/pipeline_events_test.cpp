// Training steps on pipeline stages as events: 1F1B by hand, sends over links.
#include "sim/event/pipeline_events.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "models/core/error.h"
#include "sim/event/engine.h"
#include "sim/event/pipeline_order.h"

namespace moecast {
namespace {

/// Ports of 100 GB/s, NICs of 10 GB/s, two devices a node.
Topology wires(int ranks) {
  return Topology(parse_cluster_text(R"({"schema_version":1,"name":"x","devices_per_node":2,"most_nodes":8,
      "scale_up":{"kind":"switch","bandwidth":{"value":100e9,"unit":"B/s","origin":"datasheet","source":"x"}},
      "scale_out":{"kind":"switch","bandwidth":{"value":10e9,"unit":"B/s","origin":"datasheet","source":"x"}}})",
                                     "x"),
                  ranks, nullptr);
}

Operator op(const char* name, TrainingPhase phase, OperatorKind kind = OperatorKind::gemm) {
  Operator o;
  o.name = name;
  o.phase = phase;
  o.kind = kind;
  return o;
}

OperatorTime takes(double seconds) {
  OperatorTime t;
  t.latency = Seconds(seconds);
  return t;
}

/// Equal stages: forward 1 ms, backward 2 ms a micro-batch; an optimiser of 5 ms.
struct Step {
  Step(int stages, int micro_batches, const StageHandover& handover, int ranks_of_stage = 1) {
    OperatorGraph graph;
    graph.operators = {op("forward", TrainingPhase::forward), op("backward", TrainingPhase::backward),
                       op("optimizer", TrainingPhase::optimizer)};
    const std::vector<OperatorTime> times{takes(1e-3 * micro_batches), takes(2e-3 * micro_batches), takes(5e-3)};
    const std::vector<StageWork> work(static_cast<std::size_t>(stages), {graph, times});
    const GraphNetwork network{wires(stages * ranks_of_stage), {}, wires, {}, 0};
    made = pipeline_graph(work, micro_batches, handover, network);
    done = simulate(made.events);
  }
  PipelineGraph made;
  EventTimes done;
};

TEST(PipelineOrder, IsOneForwardAndOneBackwardInTurn) {
  const std::vector<StagePass> order = one_forward_one_backward(2, 3);
  const auto of = [&](int stage) {
    std::vector<StagePass> own;
    for (const StagePass& pass : order) {
      if (pass.stage == stage) own.push_back(pass);
    }
    return own;
  };
  EXPECT_EQ(of(0), (std::vector<StagePass>{
                       {0, 0, false}, {0, 1, false}, {0, 0, true}, {0, 2, false}, {0, 1, true}, {0, 2, true}}));
  EXPECT_EQ(of(1), (std::vector<StagePass>{
                       {1, 0, false}, {1, 0, true}, {1, 1, false}, {1, 1, true}, {1, 2, false}, {1, 2, true}}));
}

TEST(PipelineOrder, NothingComesBeforeWhatItNeedsAndFewAreKept) {
  for (const int stages : {1, 2, 5, 8}) {
    for (const int micro_batches : {1, 3, 8, 20}) {
      const std::vector<StagePass> order = one_forward_one_backward(stages, micro_batches);
      ASSERT_EQ(order.size(), static_cast<std::size_t>(2 * stages * micro_batches));
      std::vector<int> kept(static_cast<std::size_t>(stages), 0);
      for (std::size_t i = 0; i < order.size(); ++i) {
        const StagePass& pass = order[i];
        int& of_stage = kept[static_cast<std::size_t>(pass.stage)];
        of_stage += pass.backward ? -1 : 1;
        EXPECT_LE(of_stage, std::min(micro_batches, stages - pass.stage)) << "activations that 1F1B keeps";
        const bool last = pass.stage + 1 == stages;
        const StagePass needed{pass.stage + (pass.backward ? 1 : -1), pass.micro_batch, pass.backward};
        if (pass.backward ? last : pass.stage == 0) continue;
        EXPECT_LT(std::ranges::find(order, needed) - order.begin(), static_cast<std::ptrdiff_t>(i));
      }
    }
  }
}

TEST(PipelineEvents, EqualStagesWithoutSendsTakeMPlusPMinusOne) {
  for (const int stages : {2, 4}) {
    for (const int micro_batches : {1, 4, 9}) {
      const Step step(stages, micro_batches, {});
      // (m + p - 1) x (1 ms + 2 ms), then the optimiser of the first stage, whose backward pass ends last.
      EXPECT_NEAR(step.done.makespan_s, 3e-3 * (micro_batches + stages - 1) + 5e-3, 1e-12);
    }
  }
}

TEST(PipelineEvents, AStageUpdatesWhenItsOwnPassesHaveEnded) {
  const Step step(2, 4, {});
  double first = 0;
  double last = 0;
  for (std::size_t i = 0; i < step.made.places.size(); ++i) {
    const PipelineGraph::Place& place = step.made.places[i];
    if (place.op != 2) continue;
    (place.stage == 0 ? first : last) = step.done.start_s[i];
  }
  EXPECT_NEAR(first, 15e-3, 1e-12);
  EXPECT_NEAR(last, 13e-3, 1e-12) << "one forward pass of the first stage, then four of both";
}

TEST(PipelineEvents, SendsTakeTheirLawBetweenNeighboursAndTheWiresShareBetweenNodes) {
  // 1 MB: by law 30 us between neighbours, 10 us of them before bytes flow: 20 us at 100 GB/s where the wire alone
  // needs 10; over a NIC of 10 GB/s ten times as long.
  const StageHandover handover{1e6, 30e-6, 10e-6};
  const Step neighbours(2, 1, handover);
  EXPECT_NEAR(neighbours.done.makespan_s, 2 * 3e-3 + 2 * 30e-6 + 5e-3, 1e-9);
  const Step apart(2, 1, handover, 2);
  EXPECT_NEAR(apart.done.makespan_s, 2 * 3e-3 + 2 * (10e-6 + 200e-6) + 5e-3, 1e-9);
}

TEST(PipelineEvents, NoGradientGoesToStagesThatTrainNothing) {
  OperatorGraph frozen;
  frozen.operators = {op("forward", TrainingPhase::forward)};
  OperatorGraph trained = frozen;
  trained.operators.push_back(op("backward", TrainingPhase::backward));
  const std::vector<OperatorTime> one{takes(2e-3)};
  const std::vector<OperatorTime> two{takes(2e-3), takes(4e-3)};
  const GraphNetwork network{wires(2), {}, wires, {}, 0};
  const std::vector<StageWork> work{{frozen, one, false}, {trained, two, false}};
  const StageHandover handover{1e6, 30e-6, 10e-6};
  const PipelineGraph made = pipeline_graph(work, 2, handover, network);
  EXPECT_NEAR(simulate(made.events).makespan_s, 1e-3 + 30e-6 + 2 * 3e-3, 1e-9);
  for (const PipelineGraph::Place& place : made.places) EXPECT_FALSE(place.backward && place.stage == 0);
  EXPECT_EQ(std::ranges::count(made.places, -1, &PipelineGraph::Place::op), 2) << "activations of two micro-batches";
}

}  // namespace
}  // namespace moecast
