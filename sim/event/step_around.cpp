#include "sim/event/step_around.h"

#include <algorithm>
#include <cmath>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr const char* kLaunch = "launch and preparation beyond the kernels";

Architecture without_experts(Architecture architecture) {
  for (Layer& layer : architecture.decoder) {
    std::erase_if(layer.blocks, [](const Block& block) { return std::holds_alternative<MoeBlock>(block); });
  }
  return architecture;
}

/// One of so many batches that a step is cut into: fewer sequences, or shorter prompts of the last one.
Workload part_of(Workload w, int batches) {
  const auto cut = [&](std::int64_t& sequences, std::int64_t& tokens) {
    if (sequences >= batches) {
      sequences = (sequences + batches - 1) / batches;
    } else {
      tokens = std::max<std::int64_t>(1, (tokens + batches - 1) / batches);
    }
  };
  if (batches == 1) return w;
  std::int64_t one_token = 1;  // of a sequence that generates: it stays whole
  if (w.phase == Phase::prefill) {
    cut(w.batch, w.prompt);
  } else {
    cut(w.batch, one_token);
    if (w.phase == Phase::mixed) cut(w.prefill_batch, w.prompt);
  }
  return w;
}

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
  try {
    Deployment held = deployment;
    held.offload.reset();
    rest = analytic.predict(without_experts(architecture), held, part_of(workload, batches));
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
  double head_s = 0;
  for (OperatorCost op : rest.operators) {
    if (op.name == kLaunch) continue;
    (op.kind == "head" ? head_s : layers_s) += op.latency.value();
    op.count *= batches;
    op.latency = op.latency * batches;
    if (op.flops) op.flops = *op.flops * batches;
    if (op.bytes) op.bytes = *op.bytes * batches;
    around.operators.push_back(std::move(op));
  }
  for (const OperatorCost& op : whole.operators) {
    if (op.name != kLaunch) continue;
    around.launch_s = op.latency.value();
    around.operators.push_back(op);
  }
  const auto layers = static_cast<double>(architecture.decoder.size());
  around.before_s = layers_s / layers;
  around.outside_s = around.launch_s + batches * (head_s + around.before_s * (layers - moe_layers));
  const double counted = layers_s + head_s;
  const double host = std::max(0.0, rest.latency->value() - counted);
  add(around.factors, rest.factors, batches);
  // What the analytic engine calls compute holds the launches of its own step.
  around.factors.compute = Seconds(std::max(0.0, around.factors.compute.value() - batches * host));
  if (whole.low && whole.high) {
    around.log_low = std::log(*whole.low / *whole.latency);
    around.log_high = std::log(*whole.high / *whole.latency);
  }
  return around;
}

}  // namespace moecast
