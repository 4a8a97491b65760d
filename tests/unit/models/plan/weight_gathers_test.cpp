#include "models/plan/weight_gathers.h"

#include <gtest/gtest.h>

#include "models/plan/graph.h"
#include "tests/support/small_models.h"

namespace moecast {
namespace {

std::vector<Operator> named(const OperatorGraph& graph, const std::string& end) {
  std::vector<Operator> found;
  for (const Operator& op : graph.operators) {
    if (op.name.ends_with(end)) found.push_back(op);
  }
  return found;
}

/// Bytes that a ring sends from each rank: (n - 1) / n of what is gathered or reduced, twice for an all-reduce.
double sent_bytes(const OperatorGraph& graph) {
  double sent = 0;
  for (const Operator& op : graph.operators) {
    const bool both = op.kind == OperatorKind::all_reduce;
    if (!both && op.kind != OperatorKind::all_gather && op.kind != OperatorKind::reduce_scatter) continue;
    const double ranks = static_cast<double>(op.shape.ranks);
    sent += op.count * (both ? 2 : 1) * (ranks - 1) / ranks * static_cast<double>(op.shape.bytes);
  }
  return sent;
}

TEST(WeightGathers, ZeroThreeSendsHalfAsMuchAgain) {
  // Rajbhandari et al. 2020, section 7: stages 0, 1 and 2 send twice the weights a step, stage 3 three times.
  Deployment d;
  d.dtype = DType::bf16;  // gradients are as wide as weights
  Workload w = training_step(32, 4);
  w.training.replicas = 8;
  double bytes = 0;
  for (const PartWeights& part : part_weights(small_moe_model(), d, w.training)) bytes += part.bytes;
  const double ring = 7.0 / 8 * bytes;
  const auto sent = [&](int stage, std::int64_t accumulation) {
    w.training.zero_stage = stage;
    w.training.accumulation = accumulation;
    return sent_bytes(build_graph(small_moe_model(), d, w));
  };
  EXPECT_NEAR(sent(0, 1) / ring, 2, 1e-6);
  EXPECT_NEAR(sent(1, 1) / ring, 2, 1e-6);
  EXPECT_NEAR(sent(2, 1) / ring, 2, 1e-6);
  // The embedding's gradient needs no weights: its 100 x 64 are not gathered again.
  const double embedding = 7.0 / 8 * 100 * 64 * 2;
  // A layer's message is of whole bytes: a third of the final norm's 128 B is not.
  constexpr double kWholeBytes = 1e-5;
  EXPECT_NEAR((sent(3, 1) + embedding) / ring, 3, kWholeBytes);
  // Four micro-batches: whoever keeps a share reduces after each, and gathers weights for each.
  EXPECT_NEAR(sent(0, 4) / ring, 2, 1e-6);
  EXPECT_NEAR(sent(1, 4) / ring, 2, 1e-6);
  EXPECT_NEAR(sent(2, 4) / ring, 4 + 1, 1e-6);
  EXPECT_NEAR((sent(3, 4) + 4 * embedding) / ring / 4, 3, kWholeBytes);
}

TEST(WeightGathers, ZeroThreeGathersLayerByLayer) {
  Deployment d;
  d.ep = d.dp = 4;
  Workload w = training_step(32, 4);
  w.training.replicas = 2;
  w.training.zero_stage = 3;
  const OperatorGraph graph = build_graph(small_moe_model(), d, w);
  const auto gathers = named(graph, "weights.experts");
  ASSERT_EQ(gathers.size(), 2U);
  EXPECT_EQ(gathers[0].phase, TrainingPhase::forward);
  EXPECT_EQ(gathers[1].phase, TrainingPhase::backward);
  for (const Operator& gather : gathers) {
    EXPECT_EQ(gather.count, 3);  // layers
    EXPECT_EQ(gather.shape.ranks, 2) << "of the replicas: each expert is on one rank of each";
    EXPECT_EQ(gather.shape.bytes, 8 / 4 * 3 * 64 * 32 * 4);
  }
  EXPECT_EQ(named(graph, "weights.layers").front().shape.ranks, 8);
  EXPECT_TRUE(named(graph, "optimizer.experts.gather").empty()) << "gathered when they are used";
}

TEST(WeightGathers, NothingBelowTheLowestTrainedPartIsGatheredAgain) {
  // The head alone is trained: its gradient needs no layer's weights.
  Workload w = training_step(32, 4);
  w.training.replicas = 2;
  w.training.zero_stage = 3;
  freeze_all_but(w, ModelPart::head);
  const OperatorGraph graph = build_graph(small_moe_model(), {}, w);
  EXPECT_EQ(named(graph, "weights.layers").size(), 1U) << "forward only";
  EXPECT_EQ(named(graph, "weights.experts").size(), 1U);
}

}  // namespace
}  // namespace moecast
