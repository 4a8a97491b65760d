#include "sim/event/pipeline_events.h"

#include <fmt/format.h>

#include <map>
#include <utility>
#include <vector>

#include "sim/event/pipeline_order.h"

namespace moecast {
namespace {

bool is_update(const Operator& op) {
  return op.phase == TrainingPhase::gradient_reduction || op.phase == TrainingPhase::optimizer;
}

bool is_backward(const Operator& op) {
  return op.phase == TrainingPhase::backward || op.phase == TrainingPhase::recompute;
}

class Builder {
 public:
  Builder(std::span<const StageWork> stages, int micro_batches, const StageHandover& handover,
          const GraphNetwork& network)
      : stages_(stages),
        micro_batches_(micro_batches),
        handover_(handover),
        links_(graph_.events, network),
        of_stage_(network.topology.ranks() / static_cast<int>(stages.size())),
        last_(stages.size(), -1),
        arrived_(stages.size()) {}

  PipelineGraph build() {
    for (const StagePass& pass : one_forward_one_backward(count(), micro_batches_)) {
      execute(pass);
      hand_over(pass);
    }
    for (int s = 0; s < count(); ++s) update(s);
    return std::move(graph_);
  }

 private:
  [[nodiscard]] int count() const { return static_cast<int>(stages_.size()); }
  [[nodiscard]] bool returns_gradient(int stage) const {
    return stages_[static_cast<std::size_t>(stage)].returns_gradient;
  }
  [[nodiscard]] RankRange ranks_of(int stage) const { return {stage * of_stage_, of_stage_}; }

  /// All micro-batches load links alike: found once for each operator of a stage, and for what it sends.
  template <typename Find>
  GraphLinks::Flow kept(std::pair<int, int> key, const Find& find) {
    const auto [known, fresh] = flows_.try_emplace(key);
    Kept& flow = known->second;
    if (fresh) {
      const GraphLinks::Flow found = find();
      flow.start_s = found.start_s;
      flow.demands.assign(found.demands.begin(), found.demands.end());
      for (const Demand& demand : flow.demands) {
        flow.resources.emplace_back(demand.resources.begin(), demand.resources.end());
      }
      for (std::size_t i = 0; i < flow.demands.size(); ++i) flow.demands[i].resources = flow.resources[i];
    }
    return {flow.start_s, flow.demands};
  }

  /// The next task of a stage. @param awaited  -1, or a task of another stage.
  int append(TaskKind kind, int stage, const GraphLinks::Flow& flow, int awaited, PipelineGraph::Place place) {
    after_.clear();
    int& last = last_[static_cast<std::size_t>(stage)];
    if (last >= 0) after_.push_back(last);
    if (awaited >= 0) after_.push_back(awaited);
    place.stage = stage;
    graph_.places.push_back(place);
    return last = graph_.events.add_task(kind, ranks_of(stage).first, 0, flow.start_s, flow.demands, after_);
  }

  void add(int stage, int op_index, double latency_s, int awaited, const StagePass* pass) {
    const Operator& op =
        stages_[static_cast<std::size_t>(stage)].operators.operators[static_cast<std::size_t>(op_index)];
    const TaskKind kind = task_kind(op.kind);
    GraphLinks::Flow flow{latency_s, {}};
    if (kind != TaskKind::kernel && kind != TaskKind::launch) {
      flow = kept({stage, op_index}, [&] {
        Operator part = op;
        if (pass != nullptr) part.count /= micro_batches_;
        return links_.flow(part, latency_s, ranks_of(stage));
      });
    }
    PipelineGraph::Place place{stage, op_index, -1, false};
    if (pass != nullptr) {
      place.micro_batch = pass->micro_batch;
      place.backward = pass->backward;
    }
    const int task = append(kind, stage, flow, awaited, place);
    graph_.events.name_task(
        task, pass != nullptr ? fmt::format("{} of micro-batch {}", op.name, pass->micro_batch) : op.name);
  }

  void execute(const StagePass& pass) {
    const StageWork& work = stages_[static_cast<std::size_t>(pass.stage)];
    std::vector<int>& arrived = arrived_[static_cast<std::size_t>(pass.stage)];
    int awaited = -1;
    const int from = pass.backward ? pass.stage + 1 : pass.stage - 1;
    const bool receives = !pass.backward || (from < count() && returns_gradient(from));
    if (receives && from >= 0 && from < count()) {
      awaited = arrived[static_cast<std::size_t>(2 * pass.micro_batch + (pass.backward ? 1 : 0))];
    }
    for (std::size_t i = 0; i < work.times.size(); ++i) {
      const Operator& op = work.operators.operators[i];
      if (is_update(op) || is_backward(op) != pass.backward) continue;
      add(pass.stage, static_cast<int>(i), work.times[i].latency.value() / micro_batches_, awaited, &pass);
      awaited = -1;
    }
  }

  void hand_over(const StagePass& pass) {
    const int to = pass.backward ? pass.stage - 1 : pass.stage + 1;
    if (to < 0 || to >= count() || (pass.backward && !returns_gradient(pass.stage))) return;
    const GraphLinks::Flow flow = kept({pass.stage, pass.backward ? -2 : -1}, [&] {
      return links_.send(handover_.bytes, handover_.latency_s, handover_.start_s, ranks_of(pass.stage), ranks_of(to));
    });
    const int task =
        append(TaskKind::transfer, pass.stage, flow, -1, {pass.stage, -1, pass.micro_batch, pass.backward});
    graph_.events.name_task(task, fmt::format("{} of micro-batch {} to stage {}",
                                              pass.backward ? "gradients" : "activations", pass.micro_batch, to));
    std::vector<int>& arrived = arrived_[static_cast<std::size_t>(to)];
    arrived.resize(2 * static_cast<std::size_t>(micro_batches_), -1);
    arrived[static_cast<std::size_t>(2 * pass.micro_batch + (pass.backward ? 1 : 0))] = task;
  }

  void update(int stage) {
    const StageWork& work = stages_[static_cast<std::size_t>(stage)];
    for (std::size_t i = 0; i < work.times.size(); ++i) {
      if (!is_update(work.operators.operators[i])) continue;
      add(stage, static_cast<int>(i), work.times[i].latency.value(), -1, nullptr);
    }
  }

  struct Kept {
    double start_s = 0;
    std::vector<Demand> demands;
    std::vector<std::vector<int>> resources;  ///< of each demand
  };

  std::span<const StageWork> stages_;
  int micro_batches_;
  const StageHandover& handover_;
  PipelineGraph graph_;
  GraphLinks links_;
  int of_stage_;
  std::vector<int> last_;                  ///< task of each stage
  std::vector<std::vector<int>> arrived_;  ///< of each stage: what brought a micro-batch, forward and backward in turn
  std::vector<int> after_;
  std::map<std::pair<int, int>, Kept> flows_;
};

}  // namespace

PipelineGraph pipeline_graph(std::span<const StageWork> stages, int micro_batches, const StageHandover& handover,
                             const GraphNetwork& network) {
  return Builder(stages, micro_batches, handover, network).build();
}

}  // namespace moecast
