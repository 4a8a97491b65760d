#include "sim/predictor.h"

#include <algorithm>
#include <utility>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/quantity_text.h"
#include "models/plan/context_limit.h"
#include "models/plan/memory.h"
#include "sim/analytic/analytic.h"
#include "sim/analytic/offload_cost.h"
#include "sim/analytic/training_run.h"
#include "sim/event/engine.h"
#include "sim/event/graph_engine.h"
#include "sim/make_predictor.h"

namespace moecast {
namespace {

class AnalyticPredictor final : public Predictor {
 public:
  AnalyticPredictor(Profile profile, std::shared_ptr<const Calibration> calibration, Engine engine)
      : profile_(std::move(profile)),
        calibration_(std::move(calibration)),
        model_(make_cost_model(calibration_)),
        engine_(engine) {}

  [[nodiscard]] Prediction predict(const Architecture& architecture, const Deployment& asked, const Workload& workload,
                                   const Without& without) const override {
    const Deployment deployment = with_resident_experts(architecture, complete(asked), workload, capacity());
    if (deployment.offload && engine_ == Engine::event) {
      throw InputError("offload", "the event engine does not fetch experts", "leave out --engine event");
    }
    Prediction prediction;
    const MemoryPerRank memory = memory_of(architecture, deployment, workload);
    const OperatorGraph graph = build_graph(architecture, deployment, workload);
    std::string missing = beyond_context(architecture, longest_sequence(workload));
    if (missing.empty()) missing = first_unknown(graph, deployment);
    if (memory.capacity && memory.total() > *memory.capacity && !without.memory_capacity) {
      prediction.status = Status::does_not_fit;
      prediction.reason = "needs " + format_bytes(memory.total()) + " a rank, " + format_bytes(*memory.capacity) +
                          " are there: " + format_bytes(memory.total() - *memory.capacity) + " too much";
    } else if (!missing.empty()) {
      prediction.status = Status::outside_range;
      prediction.reason = missing;
    } else {
      const DType dtype = deployment.dtype.value_or(architecture.dtype);
      const Closures& closures = calibration_->closures;
      const LayerTerms terms{closures.factor(deployment.backend, dtype, deployment.threads, deployment.strategy),
                             closures.interval_ratio};
      prediction = evaluate(graph, deployment, workload, *model_, terms, without);
      if (prediction.training) describe_training(architecture, deployment, workload, graph, *prediction.training);
      if (engine_ == Engine::event) run_events(graph, deployment, workload, terms.factor, prediction);
      if (prediction.origin == Origin::extrapolated) {
        prediction.warnings.emplace_back("some shapes lie outside what was measured: the interval is wider");
      }
    }
    if (deployment.offload) {
      charge_offload(architecture, deployment, workload, host_link(profile_, *deployment.offload), without, prediction);
    }
    prediction.memory = memory;
    prediction.flops = flops_of(graph);
    if (!architecture.multi_token_prediction.empty()) {
      prediction.warnings.emplace_back("the layers of multi-token prediction are not part of the step");
    }
    const ParameterCount count = count_parameters(architecture);
    prediction.total_parameters = count.total;
    prediction.active_parameters = count.active;
    return prediction;
  }

 private:
  /// Fills in the backend that the profile has for the dtype where none is asked for.
  [[nodiscard]] Deployment complete(Deployment deployment) const {
    if (!deployment.backend.empty()) return deployment;
    for (const ProfileBackend& backend : profile_.backends) {
      if (!deployment.dtype || backend.dtype == *deployment.dtype) {
        deployment.backend = backend.name;
        return deployment;
      }
    }
    if (!calibration_->gemms.empty()) deployment.backend = calibration_->gemms.front().backend;
    return deployment;
  }

  /// The same operators as tasks; factors that are removed have no meaning there.
  void run_events(const OperatorGraph& graph, const Deployment& deployment, const Workload& workload, double factor,
                  Prediction& prediction) const {
    std::vector<OperatorTime> times;
    times.reserve(graph.operators.size());
    for (const Operator& op : graph.operators) times.push_back(time_of(op, graph, deployment, *model_));
    const double bandwidth = memory_bandwidth_of(profile_, deployment.threads);
    const EventTimes events = simulate(event_graph_of(graph, times, {bandwidth, 0}));
    const double ratio = events.makespan_s * factor / prediction.latency->value();
    prediction.latency = *prediction.latency * ratio;
    prediction.low = *prediction.low * ratio;
    prediction.high = *prediction.high * ratio;
    if (prediction.training) {
      for (Seconds& phase : prediction.training->latency) phase *= ratio;
    }
    if (events.makespan_s > 0) prediction.throughput_tokens_per_s = step_tokens(workload) / prediction.latency->value();
  }

  [[nodiscard]] MemoryPerRank memory_of(const Architecture& architecture, const Deployment& deployment,
                                        const Workload& workload) const {
    const MemoryBreakdown needed = memory_per_rank(architecture, deployment, workload);
    MemoryPerRank memory{needed.weights, needed.kv_cache,  needed.activations,      needed.workspace,
                         capacity(),     needed.gradients, needed.optimizer_states, needed.saved_activations};
    return memory;
  }

  [[nodiscard]] std::optional<Bytes> capacity() const {
    const HardwareQuantity* known = profile_.find("memory_capacity");
    return known != nullptr ? std::optional(Bytes(known->value)) : std::nullopt;
  }

  /// What keeps the step from being timed; empty when nothing does.
  [[nodiscard]] std::string first_unknown(const OperatorGraph& graph, const Deployment& deployment) const {
    if (!graph.not_executed.empty()) return graph.not_executed.front();
    for (const Operator& op : graph.operators) {
      const KernelPoint point = kernel_point(op, graph, deployment);
      if (!model_->knows(point.kind, point.backend, point.dtype, point.threads)) {
        return profile_.name + " holds no " + std::string(to_string(point.kind)) + " of " + point.backend + " in " +
               std::string(to_string(point.dtype)) + " on " + std::to_string(point.threads) + " threads, which " +
               op.name + " needs";
      }
    }
    return {};
  }

  Profile profile_;
  std::shared_ptr<const Calibration> calibration_;
  std::shared_ptr<const CostModel> model_;
  Engine engine_;
};

}  // namespace

std::unique_ptr<Predictor> make_predictor(Profile profile, std::shared_ptr<const Calibration> calibration,
                                          Engine engine) {
  return std::make_unique<AnalyticPredictor>(std::move(profile), std::move(calibration), engine);
}

std::unique_ptr<Predictor> Predictor::load(const std::string& folder, Engine engine) {
  Profile profile = read_profile(folder);
  const std::string path = folder + "/calibration.json";
  const auto calibration = std::make_shared<const Calibration>(read_calibration(folder));
  if (calibration->profile != profile.name) {
    throw InputError(path, "belongs to profile \"" + calibration->profile + "\", not to \"" + profile.name + "\"",
                     "make it again: moecast calibrate " + folder);
  }
  return make_predictor(std::move(profile), std::move(calibration), engine);
}

}  // namespace moecast
