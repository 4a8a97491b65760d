#include <gtest/gtest.h>

#include "models/architecture/accounting.h"
#include "models/architecture/zoo.h"
#include "models/plan/graph.h"
#include "models/plan/memory.h"

namespace moecast {
namespace {

const std::string kZoo = MOECAST_SOURCE_DIR "/models/zoo";

Workload step(Phase phase) {
  Workload w;
  w.phase = phase;
  w.batch = 2;
  w.prompt = 384;
  w.context = phase == Phase::decode ? 1000 : 0;
  w.prefill_batch = phase == Phase::mixed ? 3 : 0;
  return w;
}

double flops(const OperatorGraph& graph) {
  double sum = 0;
  for (const Operator& op : graph.operators) sum += op.flops.value() * op.count;
  return sum;
}

TEST(ZooGraph, EveryModelAnswersItsMemoryAndHasItsOperatorsInEveryPhase) {
  int models = 0;
  for (const std::string& name : zoo_names(kZoo)) {
    const Architecture a = load_zoo(kZoo, name);
    for (const Phase phase : {Phase::decode, Phase::prefill, Phase::mixed, Phase::encode}) {
      if ((phase == Phase::encode ? a.encoder : a.decoder).empty()) continue;
      const Workload w = step(phase);
      EXPECT_GT(memory_per_rank(a, {}, w).total().value(), 0) << name;
      const OperatorGraph graph = build_graph(a, {}, w);
      EXPECT_FALSE(graph.operators.empty()) << name;
      for (const Operator& op : graph.operators) {
        EXPECT_GE(op.flops.value(), 0) << name << " " << op.name;
        EXPECT_GT(op.activation_bytes.value() + op.weight_bytes.value(), 0) << name << " " << op.name;
        EXPECT_GT(op.count, 0) << name << " " << op.name;
      }
      for (const std::string& missing : graph.not_executed) {
        EXPECT_NE(missing.find("not supported yet"), std::string::npos) << name;
      }
      ++models;
    }
  }
  EXPECT_GT(models, 150);
}

/// Some choices are dropped.
bool limited(const Architecture& a) {
  for (const Layer& layer : a.decoder) {
    for (const Block& block : layer.blocks) {
      const auto* moe = std::get_if<MoeBlock>(&block);
      if (moe != nullptr && moe->capacity.limited()) return true;
    }
  }
  return false;
}

TEST(ZooGraph, FlopsAgreeWithTheAccountOfTheArchitecture) {
  for (const std::string& name : zoo_names(kZoo)) {
    const Architecture a = load_zoo(kZoo, name);
    if (!a.encoder.empty() || a.vocabulary == 0) continue;
    for (const Phase phase : {Phase::decode, Phase::prefill}) {
      const Workload w = step(phase);
      const OperatorGraph graph = build_graph(a, {}, w);
      if (!graph.not_executed.empty()) continue;
      const double head = 2.0 * 2 * static_cast<double>(a.vocabulary * a.hidden);
      const double fresh = phase == Phase::decode ? 1 : 384;
      const double counted = step_flops(a, 2, fresh, phase == Phase::decode ? 1000 : 0).value();
      // Absorbed latent attention does more arithmetic than the account, which counts the expanded form.
      const double ratio = (flops(graph) - head) / counted;
      EXPECT_GT(ratio, limited(a) ? 0.9 : 0.98) << name << " " << to_string(phase);
      EXPECT_LT(ratio, phase == Phase::decode ? 1.3 : 1.02) << name << " " << to_string(phase);
    }
  }
}

}  // namespace
}  // namespace moecast
