#include "sim/event/step_around.h"

#include <algorithm>
#include <cmath>

#include "models/core/error.h"
#include "sim/step/stage_answer.h"

namespace moecast {
namespace {

bool is_launch(const OperatorCost& op) { return op.name == kPreparation || op.name == kLaunchWait; }

Architecture without_experts(Architecture architecture) {
  for (Layer& layer : architecture.decoder) {
    std::erase_if(layer.blocks, [](const Block& block) { return std::holds_alternative<MoeBlock>(block); });
  }
  return architecture;
}

/// One of the batches that a step is cut into.
struct Part {
  Workload workload;
  double share = 1;  ///< of the workload's time that the mean part takes
};

/// Fewer sequences a rank; where a rank has too few, pieces of prompts, which see those before them. A sequence that
/// generates stays whole: it is in one of the parts.
Part part_of(const Workload& whole, int dp, int batches) {
  Part part{whole};
  if (batches == 1) return part;
  Workload& w = part.workload;
  const auto divides = [&](std::int64_t sequences) { return (sequences + dp - 1) / dp >= batches; };
  const auto cut_prompts = [&](std::int64_t& sequences, std::int64_t& prefix) {
    if (divides(sequences)) {
      sequences = (sequences + batches - 1) / batches;
      return;
    }
    prefix += w.prompt * (batches - 1) / (2 * batches);
    w.prompt = std::max<std::int64_t>(1, (w.prompt + batches - 1) / batches);
  };
  if (w.phase == Phase::prefill) {
    cut_prompts(w.batch, w.context);
    return part;
  }
  if (divides(w.batch)) {
    w.batch = (w.batch + batches - 1) / batches;
  } else if (w.phase == Phase::decode) {
    part.share = 1.0 / batches;
  }
  if (w.phase == Phase::mixed) cut_prompts(w.prefill_batch, w.prefix);
  return part;
}

/// Dense layers stand between others, not before the router of one.
bool is_dense_layer(const OperatorCost& op) { return op.name.starts_with("ffn"); }

void add(Factors& all, const Factors& one, double times) {
  all.all_to_all += one.all_to_all * times;
  all.memory_bandwidth += one.memory_bandwidth * times;
  all.compute += one.compute * times;
}

}  // namespace

StepAround step_around(const Predictor& analytic, const Architecture& architecture, const Deployment& deployment,
                       const Workload& workload, int batches, int moe_layers) {
  StepAround around;
  if (!architecture.encoder.empty()) {
    around.missing = "encoders and decoders are not put together by the event engine yet";
    return around;
  }
  Prediction rest;
  Prediction whole;
  const Part part = part_of(workload, deployment.dp, batches);
  const double times = batches * part.share;
  try {
    Deployment held = deployment;
    held.offload.reset();
    rest = analytic.predict(without_experts(architecture), held, part.workload);
    whole = analytic.predict(architecture, deployment, workload);
  } catch (const InputError& error) {
    around.missing = error.where() + ": " + error.problem();
    return around;
  }
  for (const Prediction* p : {&rest, &whole}) {
    if (p->status == Status::ok && p->latency) continue;
    around.missing = p->reason;
    return around;
  }
  double layers_s = 0;
  double others_s = 0;
  const auto small = std::ranges::find(whole.operators, kSmallKernelsPart, &OperatorCost::name);
  for (OperatorCost op : rest.operators) {
    if (is_launch(op)) continue;
    // Layers without experts launch fewer of them.
    if (op.name == kSmallKernelsPart && small != whole.operators.end()) op.latency = small->latency;
    (op.kind == "head" || is_dense_layer(op) ? others_s : layers_s) += op.latency.value();
    op.count *= times;
    op.latency = op.latency * times;
    if (op.flops) op.flops = *op.flops * times;
    if (op.bytes) op.bytes = *op.bytes * times;
    around.operators.push_back(std::move(op));
  }
  around.warnings = whole.warnings;
  double waits_s = 0;
  for (const OperatorCost& op : whole.operators) {
    if (op.name == kAgreement || op.name == kJoinedParts) {
      others_s += op.latency.value() / times;
      around.operators.push_back(op);
    }
    if (!is_launch(op)) continue;
    (op.name == kLaunchWait ? waits_s : around.prepared_s) += op.latency.value();
    around.operators.push_back(op);
  }
  if (waits_s > 0 && whole.offload) {
    around.prepared_s += waits_s;  // the host sees every router's choice: it does not run ahead
  } else if (waits_s > 0) {
    around.launched_s = whole.latency->value() - around.prepared_s;
  }
  const auto layers = static_cast<double>(architecture.decoder.size());
  around.before_s = part.share * layers_s / layers;
  around.outside_s = times * others_s + batches * around.before_s * (layers - moe_layers);
  const double counted = layers_s + others_s;
  const double host = std::max(0.0, rest.latency->value() - counted);
  add(around.factors, rest.factors, times);
  // What the analytic engine calls compute holds the launches of its own step.
  around.factors.compute = Seconds(std::max(0.0, around.factors.compute.value() - times * host));
  if (whole.low && whole.high) {
    around.log_low = std::log(*whole.low / *whole.latency);
    around.log_high = std::log(*whole.high / *whole.latency);
  }
  return around;
}

}  // namespace moecast
