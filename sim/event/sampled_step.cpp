#include "sim/event/sampled_step.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "models/core/error.h"
#include "models/core/statistics.h"
#include "models/plan/graph.h"
#include "models/routing/load.h"
#include "models/routing/metrics.h"
#include "models/routing/routing_trace.h"
#include "sim/analytic/analytic.h"
#include "sim/cost/calibration.h"
#include "sim/event/engine.h"
#include "sim/event/graph_engine.h"

namespace moecast {
namespace {

struct SampledLayers {
  int layers = 0;
  std::int64_t experts = 0;
  int top_k = 1;
};

SampledLayers sampled_layers(const Architecture& architecture) {
  SampledLayers found;
  for (const auto* stack : {&architecture.encoder, &architecture.decoder}) {
    for (const Layer& layer : *stack) {
      for (const Block& block : layer.blocks) {
        const auto* moe = std::get_if<MoeBlock>(&block);
        if (moe == nullptr) continue;
        if (found.layers > 0 && (moe->expert_count() != found.experts || moe->router.top_k != found.top_k)) {
          throw InputError(architecture.name, "has MoE layers of different experts or top-k",
                           "the event engine samples models whose MoE layers route alike");
        }
        ++found.layers;
        found.experts = moe->expert_count();
        found.top_k = moe->router.top_k;
      }
    }
  }
  return found;
}

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
  const std::vector<double> popularity = expert_popularity(workload.load, routed.experts);
  const auto tokens = static_cast<std::int64_t>(step_tokens(workload));
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
  const auto step_of = [&](std::vector<std::int64_t> rows, int layers) {
    const std::vector<double> load(rows.begin(), rows.end());
    d.row_imbalance += load_metrics(load).max_over_mean / samples / layers;
    d.distinct_ratio += static_cast<double>(std::ranges::count_if(rows, [](std::int64_t r) { return r > 0; })) /
                        static_cast<double>(routed.experts) / samples / layers;
    drawn.rows_per_expert = std::move(rows);
    return predictor.predict(architecture, deployment, drawn).latency->value() / layers;
  };
  if (trace) {
    const int layers = static_cast<int>(trace->layers.size());
    std::vector<int> complete(static_cast<std::size_t>(samples), 0);
    steps.assign(static_cast<std::size_t>(samples), 0);
    read_trace_windows(trace->path, static_cast<int>(routed.experts), tokens, samples,
                       [&](std::size_t /*layer*/, std::int64_t window, const Assignment& assignment) {
                         if (stop != nullptr && stop->load()) return false;
                         const auto at = static_cast<std::size_t>(window);
                         steps[at] += step_of(assignment.rows_per_expert(), layers);
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
      sum += step_of(sample_rows(popularity, tokens, routed.top_k, seed * 0x9e3779b97f4a7c15ULL + own), routed.layers);
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
