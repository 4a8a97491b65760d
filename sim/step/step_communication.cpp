#include "sim/step/step_communication.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>

#include "models/core/count.h"
#include "sim/cost/kernel/expert_traffic.h"
#include "sim/step/collective_cost.h"
#include "sim/step/context_parallel.h"

namespace moecast {
namespace {

class CommunicationMaker {
 public:
  CommunicationMaker(const StepCommunication& what, OperatorMaker& maker) : what_(what), maker_(maker) {}

  void add() {
    if (maker_.deployment.tp > 1) add_tensor_parallel();
    if (maker_.deployment.dp > 1 && maker_.result.moe_layers > 0 && !is_lone_block(maker_.architecture))
      add_agreement();
    if (stage_ranks(maker_.deployment) > node_devices()) {
      maker_.result.notes.push_back(
          fmt::format("nodes of {} devices; collectives between nodes by their law", node_devices()));
    }
    if (maker_.deployment.cp > 1) {
      add_context_parallel(maker_.context_attention, maker_.deployment, maker_.engine, maker_.calibration,
                           maker_.result);
      return;
    }
    if (what_.wide && !what_.routed.empty() && std::ranges::all_of(what_.routed, [&](const RoutedLayers& layers) {
          return add_deepep_exchange(layers, maker_.deployment, maker_.calibration, maker_.result);
        })) {
      if (maker_.engine.two_batch_overlap) {
        maker_.result.overlapped = kDispatchMultiprocessors / maker_.calibration.device.multiprocessors;
        maker_.note(
            "two-batch overlap: one half of a batch computes while rows of the other travel, where that is faster");
      }
      return;
    }
    if (maker_.deployment.dp > 1 && maker_.result.moe_layers > 0) add_replica_exchange();  // replicas lie across nodes
  }

 private:
  [[nodiscard]] int node_devices() const { return maker_.calibration.device.node_devices; }

  void add_collective(const std::string& name, const CollectiveCost& cost, double count, double StepShape::* rows,
                      double columns) {
    maker_.result.collectives += count;
    if (!cost.answer) maker_.note(name + ": no measured collective; bytes over the link's bandwidth");
    maker_.add(
        name, cost.kernel, StepGroup::communication, count,
        [seconds = cost.seconds, rows, columns](const StepShape& shape) { return seconds(shape.*rows * columns); });
  }

  [[nodiscard]] CollectiveCost node_all_reduce() {
    const int tp = maker_.deployment.tp;
    const std::string& said = maker_.deployment.all_reduce;
    const std::string& other = said.empty() ? maker_.engine.all_reduce_framework : said;
    if (!other.empty() && has_all_reduce(maker_.calibration, other, tp)) {
      return engine_all_reduce_cost(maker_.calibration, other, "", tp);
    }
    if (!other.empty())
      maker_.note("all_reduce: that of " + other + " was not measured; the engine's own stands for it");
    return engine_all_reduce_cost(maker_.calibration, maker_.framework, maker_.version, tp);
  }

  /// Ranks of a tensor-parallel group are neighbours.
  void add_tensor_parallel() {
    const int tp = maker_.deployment.tp;
    const double hidden = value(maker_.architecture.hidden);
    const int nodes = (tp + node_devices() - 1) / node_devices();
    const CollectiveCost reduce =
        nodes == 1 ? node_all_reduce() : collective_cost(maker_.calibration, "all_reduce", tp, nodes);
    add_collective("all_reduce", reduce, what_.all_reduces + (what_.embeds ? 1 : 0), &StepShape::rows, hidden);
    for (const NarrowReduce& narrow : maker_.narrow_reduces) {
      add_collective(narrow.name, reduce, narrow.count, &StepShape::rows, narrow.columns);
    }
    if (maker_.architecture.vocabulary > 0) add_logits(nodes);
  }

  /// Every rank has its columns of the head's result; the sampler needs all of a row.
  void add_logits(int nodes) {
    const CollectiveCost gather = collective_cost(maker_.calibration, "all_gather", maker_.deployment.tp, nodes);
    maker_.result.collectives += 1;
    const double columns = value(padded_vocabulary(maker_.architecture.vocabulary, maker_.deployment.tp));
    maker_.add("logits.all_gather", gather.kernel, StepGroup::communication, 1,
               [seconds = gather.seconds, columns](const StepShape& shape) {
                 return seconds(rows_of(StepRows::sequences, shape) * columns);
               });
  }

  /// Replicas of attention tell each other how many rows each has, before every step.
  void add_agreement() {
    constexpr double kElements = 4;  // 8 bytes a replica: tokens, and whether there is a prompt among them
    const int dp = maker_.deployment.dp;
    const int nodes = std::min(dp, (stage_ranks(maker_.deployment) + node_devices() - 1) / node_devices());
    const CollectiveCost reduce = collective_cost(maker_.calibration, "all_reduce", dp, nodes);
    maker_.result.collectives += 1;
    maker_.add(kAgreement, reduce.kernel, StepGroup::communication, 1,
               [each = reduce.seconds(kElements * dp)](const StepShape& /*shape*/) { return each; });
  }

  /// Calls of a layer's gather and scatter beyond one of each: replicas with prompts have unequally many rows.
  [[nodiscard]] double more_replica_calls(int ranks) const {
    const int calls = maker_.engine.call_a_replica ? ranks : 1;
    return calls * (maker_.engine.replica_tensors + 1) - 2;
  }

  void add_replica_exchange() {
    const double layers = maker_.result.moe_layers;
    const int ranks = maker_.deployment.dp * (what_.splits_rows ? maker_.deployment.tp : 1);
    const int nodes = std::min(ranks, (stage_ranks(maker_.deployment) + node_devices() - 1) / node_devices());
    std::map<double, double> layers_of;  // by the width of what is routed
    for (const RoutedLayers& routed : what_.routed) layers_of[routed.hidden] += routed.count;
    for (const std::string operation : {"all_gather", "reduce_scatter"}) {
      const CollectiveCost cost = collective_cost(maker_.calibration, operation, ranks, nodes);
      for (const auto& [width, count] : layers_of) {
        add_collective(operation, cost, count, &StepShape::expert_rows, width);
      }
    }
    maker_.result.collectives += more_replica_calls(ranks) * layers;
    if (what_.splits_rows) {
      const int tp_nodes = (maker_.deployment.tp + node_devices() - 1) / node_devices();
      add_collective(kJoinedParts, collective_cost(maker_.calibration, "all_gather", maker_.deployment.tp, tp_nodes),
                     layers, &StepShape::rows, value(maker_.architecture.hidden));
    }
  }

  const StepCommunication& what_;
  OperatorMaker& maker_;
};

}  // namespace

void add_communication(const StepCommunication& what, OperatorMaker& maker) { CommunicationMaker(what, maker).add(); }

}  // namespace moecast
