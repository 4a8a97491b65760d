#include "sim/event/ep_answer.h"
#include "sim/event/ep_pipeline.h"
#include "sim/event/ep_study.h"
#include "sim/step/expert_exchange.h"

namespace moecast {
namespace {

/// Whether two batches can overlap: rows travel between nodes by DeepEP, and nothing asks for a batch that is whole.
bool can_overlap(const EpPlan& plan, int node_devices, const EpOptions& options, const Workload& workload) {
  const bool deepep = plan.method == DispatchMethod::normal || plan.method == DispatchMethod::low_latency;
  return deepep && plan.studies.front().study.topology.nodes() > 1 &&
         is_wide_expert_parallelism(plan.deployment, node_devices) &&
         workload.batch + workload.prefill_batch >= 2 * plan.deployment.ep && options.batches == 1 &&
         options.chunks == 1 && options.shadowed_experts == 0 && !plan.deployment.offload && !workload.load.trace;
}

}  // namespace

Prediction predict_ep_stage(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                            const Deployment& deployment, const Workload& workload, EpOptions& options, bool overlaps,
                            const Predictor* analytic, std::vector<double>* of_stage) {
  const EpPlan plan = plan_ep(machine, cluster, architecture, deployment, workload, options, analytic);
  if (!overlaps || !can_overlap(plan, machine.kernels->device.node_devices, options, workload)) {
    return predict_plan(machine, architecture, plan, workload, options, analytic, of_stage);
  }
  EpOptions one = options;
  EpOptions two = options;
  two.batches = 2;
  if (options.progress) {
    one.progress = [&](int done) { options.progress(done / 2); };
    two.progress = [&](int done) { options.progress((options.samples + done) / 2); };
  }
  Prediction whole = predict_plan(machine, architecture, plan, workload, one, analytic, of_stage);
  if (!whole.latency) return whole;
  const EpPlan half = plan_ep(machine, cluster, architecture, deployment, workload, two, analytic);
  std::vector<double> of_halves;
  Prediction halves =
      predict_plan(machine, architecture, half, workload, two, analytic, of_stage != nullptr ? &of_halves : nullptr);
  if (!halves.latency || *halves.latency >= *whole.latency) return whole;
  options.batches = 2;
  if (of_stage != nullptr) *of_stage = std::move(of_halves);
  halves.warnings.emplace_back(
      "two-batch overlap: one half of a batch computes while rows of the other travel (--batches 1: none)");
  return halves;
}

Prediction predict_ep(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                      const Deployment& deployment, const Workload& workload, const EpOptions& options,
                      const Predictor* analytic) {
  if (deployment.pp != 1) {
    return predict_ep_pipeline(machine, cluster, architecture, deployment, workload, options, false, analytic);
  }
  EpOptions own = options;
  return predict_ep_stage(machine, cluster, architecture, deployment, workload, own, false, analytic);
}

Prediction predict_ep_overlapped(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                                 const Deployment& deployment, const Workload& workload, EpOptions& options,
                                 const Predictor* analytic) {
  if (deployment.pp != 1) {
    return predict_ep_pipeline(machine, cluster, architecture, deployment, workload, options, true, analytic);
  }
  return predict_ep_stage(machine, cluster, architecture, deployment, workload, options, true, analytic);
}

}  // namespace moecast
