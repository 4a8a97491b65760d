#include "sim/analytic/parallel_efficiency.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "models/core/error.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {
namespace {

Deployment on_one_device(Deployment d) {
  d.tp = d.ep = d.dp = d.pp = d.cp = 1;
  d.moe_tp.reset();
  d.micro_batches.reset();
  d.redundant_experts = 0;
  return d;
}

/// Why one device has no time for the same work; empty where `alone` has one.
std::string ask_one_device(const Predictor& predictor, const Architecture& architecture, const Deployment& deployment,
                           const Workload& workload, Without without, Prediction& alone) {
  if (deployment.offload) return "one device would fetch other experts";
  without.memory_capacity = true;
  Workload all = workload;
  all.training.replicas = 1;
  try {
    alone = predictor.predict(architecture, on_one_device(deployment), all, without);
  } catch (const InputError& error) {
    return "one device: " + (error.where().empty() ? "" : error.where() + " ") + error.problem();
  }
  return alone.latency ? std::string() : "one device: " + alone.reason;
}

}  // namespace

double devices_of(const Deployment& asked, const Workload& workload) {
  const Deployment d = with_attention_replicas(asked);
  const double replicas = workload.phase == Phase::train ? static_cast<double>(workload.training.replicas) : 1;
  return std::max(stage_ranks(d), d.ep * expert_tensor_ranks(d)) * d.pp * replicas;
}

void rate_expert_parallelism(const Predictor& predictor, const Architecture& architecture, const Deployment& deployment,
                             const Workload& workload, const Without& without, Prediction& answer) {
  if (!answer.latency || deployment.ep == 1) return;
  answer.factors.expert_parallel_efficiency_ratio.reset();
  Prediction alone;
  if (const std::string problem = ask_one_device(predictor, architecture, deployment, workload, without, alone);
      !problem.empty()) {
    answer.warnings.push_back("expert-parallel efficiency is not known: " + problem);
    return;
  }
  const double devices = devices_of(deployment, workload);
  const double ratio = alone.latency->value() / (devices * answer.latency->value());
  answer.factors.expert_parallel_efficiency_ratio = ratio;
  if (ratio > 1) {
    answer.warnings.push_back(fmt::format(
        "expert-parallel efficiency {:.2f}: one device needs {:.1f} times as long as {:.0f}, with the whole batch its "
        "kernels or its launches are less efficient",
        ratio, ratio * devices, devices));
  }
}

}  // namespace moecast
