#include "sim/event/sampled_step.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "models/core/error.h"
#include "models/core/statistics.h"
#include "models/plan/graph.h"
#include "models/routing/capacity.h"
#include "models/routing/load.h"
#include "models/routing/metrics.h"
#include "models/routing/routing_trace.h"
#include "sim/analytic/analytic.h"
#include "sim/cost/calibration.h"
#include "sim/event/block_routing.h"
#include "sim/event/engine.h"
#include "sim/event/graph_engine.h"

namespace moecast {
namespace {

/// MoE layers that route alike.
struct SampledLayers {
  int layers = 0;
  const MoeBlock* block = nullptr;
};

SampledLayers sampled_layers(const Architecture& architecture) {
  SampledLayers found;
  for (const auto* stack : {&architecture.encoder, &architecture.decoder}) {
    for (const Layer& layer : *stack) {
      for (const Block& block : layer.blocks) {
        const auto* moe = std::get_if<MoeBlock>(&block);
        if (moe == nullptr) continue;
        if (found.block != nullptr && (moe->expert_count() != found.block->expert_count() ||
                                       moe->router != found.block->router || moe->capacity != found.block->capacity)) {
          throw InputError(architecture.name, "has MoE layers of different experts, routers or capacities",
                           "the event engine samples models whose MoE layers route alike");
        }
        ++found.layers;
        found.block = moe;
      }
    }
  }
  return found;
}

/// What one layer's routing gives its experts.
class LayerDraw {
 public:
  LayerDraw(const MoeBlock& block, RoutingPolicy policy, std::vector<double> popularity, std::int64_t tokens)
      : block_(block),
        popularity_(std::move(popularity)),
        router_(std::move(policy), popularity_),
        tokens_(tokens),
        slots_(capacity_slots(block.capacity, tokens, block.router.top_k, block.expert_count())) {}

  void draw(std::uint64_t seed) {
    Random random(seed);
    router_.draw(tokens_, random, assignment_);
    limit();
  }
  void take(const Assignment& recorded) {
    assignment_ = recorded;
    limit();
  }
  [[nodiscard]] std::vector<std::int64_t> rows() const { return assignment_.rows_per_expert(); }
  [[nodiscard]] double dropped_ratio() const { return dropped_ratio_; }
  /// Rows of the fullest expert over the mean, empty slots that are computed included.
  [[nodiscard]] double imbalance() const {
    if (assignment_.expert.empty() || (slots_ && block_.capacity.pad)) return 1;
    const std::vector<std::int64_t> rows = this->rows();
    return load_metrics(std::vector<double>(rows.begin(), rows.end())).max_over_mean;
  }

 private:
  void limit() {
    dropped_ratio_ = 0;
    if (!slots_ || assignment_.expert.empty()) return;
    const auto asked = static_cast<double>(assignment_.expert.size());
    const CapacityOutcome outcome = limit_assignment(assignment_, *slots_, overflow_of(block_.capacity), popularity_);
    dropped_ratio_ = static_cast<double>(outcome.dropped + outcome.queued) / asked;
  }

  const MoeBlock& block_;
  std::vector<double> popularity_;
  Router router_;
  std::int64_t tokens_;
  std::optional<std::int64_t> slots_;
  Assignment assignment_;
  double dropped_ratio_ = 0;
};

}  // namespace

Prediction sample_step(const Predictor& predictor, const Architecture& architecture, const Deployment& deployment,
                       const Workload& workload, int most, std::uint64_t seed,
                       const std::function<void(int done)>& progress, const std::atomic<bool>* stop) {
  if (workload.phase == Phase::train) {
    throw InputError("phase", "routings of a training step are not sampled", "ask the analytic engine");
  }
  Prediction prediction = predictor.predict(architecture, deployment, workload);
  const SampledLayers routed = sampled_layers(architecture);
  if (!prediction.latency || routed.layers == 0 || !workload.rows_per_expert.empty()) return prediction;
  const MoeBlock& block = *routed.block;
  const auto tokens = static_cast<std::int64_t>(step_tokens(workload));
  const std::int64_t experts = block.expert_count();
  if (block.sub_token_heads > 1) {
    throw InputError(architecture.name, "routes sub-tokens, which are not sampled", "ask the analytic engine");
  }
  LayerDraw drawing(block, policy_of(block, workload, architecture.name), expert_popularity(workload.load, experts),
                    tokens);
  const RoutingTrace* const trace = workload.load.trace.get();
  const int samples =
      trace == nullptr ? most : static_cast<int>(std::min<std::int64_t>(most, trace_windows(*trace, tokens)));
  const double expected = prediction.latency->value();
  StepDistribution d;
  d.samples = samples;
  d.seed = seed;
  d.row_imbalance = d.distinct_ratio = 0;
  std::vector<double> steps;
  Workload drawn = workload;
  drawn.load = {};
  // A step whose layers all route like this one.
  const auto step_of = [&](int layers) {
    const double share = 1.0 / samples / layers;
    d.row_imbalance += drawing.imbalance() * share;
    d.dropped_ratio += drawing.dropped_ratio() * share;
    drawn.rows_per_expert = drawing.rows();
    d.distinct_ratio +=
        static_cast<double>(std::ranges::count_if(drawn.rows_per_expert, [](auto r) { return r > 0; })) /
        static_cast<double>(experts) * share;
    return predictor.predict(architecture, deployment, drawn).latency->value() / layers;
  };
  if (trace) {
    const int layers = static_cast<int>(trace->layers.size());
    std::vector<int> complete(static_cast<std::size_t>(samples), 0);
    steps.assign(static_cast<std::size_t>(samples), 0);
    read_trace_windows(trace->path, static_cast<int>(experts), tokens, samples,
                       [&](std::size_t /*layer*/, std::int64_t window, const Assignment& assignment) {
                         if (stop != nullptr && stop->load()) return false;
                         const auto at = static_cast<std::size_t>(window);
                         drawing.take(assignment);
                         steps[at] += step_of(layers);
                         if (++complete[at] == layers && progress) progress(static_cast<int>(at) + 1);
                         return true;
                       });
  }
  for (int sample = 0; sample < samples && !trace; ++sample) {
    if (stop != nullptr && stop->load()) break;
    double sum = 0;
    for (int layer = 0; layer < routed.layers; ++layer) {
      const std::uint64_t own = static_cast<std::uint64_t>(sample) * static_cast<std::uint64_t>(routed.layers) +
                                static_cast<std::uint64_t>(layer);
      drawing.draw(seed * 0x9e3779b97f4a7c15ULL + own);
      sum += step_of(routed.layers);
    }
    steps.push_back(sum);
    if (progress) progress(sample + 1);
  }
  if (steps.empty()) return prediction;
  d.mean = Seconds(mean(steps));
  d.p50 = Seconds(quantile(steps, 0.5));
  d.p90 = Seconds(quantile(steps, 0.9));
  d.p99 = Seconds(quantile(steps, 0.99));
  const double ratio = d.mean.value() / expected;
  prediction.latency = d.mean;
  prediction.low = *prediction.low * ratio;
  prediction.high = *prediction.high * ratio;
  if (prediction.throughput_tokens_per_s) *prediction.throughput_tokens_per_s /= ratio;
  prediction.distribution = d;
  add_noise_note(block, prediction.warnings);
  return prediction;
}

StepEvents step_events(const std::string& folder, const Architecture& architecture, const Deployment& asked,
                       const Workload& workload) {
  const Profile profile = read_profile(folder);
  const auto calibration = std::make_shared<const Calibration>(read_calibration(folder));
  const auto model = make_cost_model(calibration);
  Deployment deployment = asked;
  if (deployment.backend.empty() && !calibration->gemms.empty()) {
    deployment.backend = calibration->gemms.front().backend;
    for (const ProfileBackend& backend : profile.backends) {
      if (deployment.dtype && backend.dtype != *deployment.dtype) continue;
      deployment.backend = backend.name;
      break;
    }
  }
  const OperatorGraph graph = build_graph(architecture, deployment, workload);
  if (!graph.not_executed.empty()) throw InputError(architecture.name, graph.not_executed.front() + " is not executed");
  std::vector<OperatorTime> times;
  for (const Operator& op : graph.operators) times.push_back(time_of(op, graph, deployment, *model));
  StepEvents step{event_graph_of(graph, times, {memory_bandwidth_of(profile, deployment.threads), 0}), {}};
  step.times = simulate(step.graph);
  return step;
}

}  // namespace moecast
