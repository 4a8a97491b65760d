#include "sim/step/gpu_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/core/count.h"
#include "models/core/error.h"

namespace moecast {
namespace {

/// Where no table helps: shares of bandwidth and peak that such kernels usually reach, and their start.
constexpr double kTrainingBandwidth = 0.7;
constexpr double kUsualPeak = 0.5;
constexpr double kTrainingStart = 3e-6;
/// ln 1.6: such guesses lie within a factor of that.
constexpr double kPhysicsHalfWidth = 0.47;
/// Narrowest linear layer of the tables.
constexpr std::int64_t kNarrowest = 32;

/// Bytes of a loop between GEMMs whose arrays are all in the operator's format.
double loop_bytes(const Operator& op) {
  const OperatorShape& s = op.shape;
  const double element = bytes_per_element(op.dtype);
  switch (op.kind) {
    case OperatorKind::elementwise: return 3 * element * value(s.m) * value(s.width);
    case OperatorKind::activation: return (s.gated != 0 ? 3 : 2) * element * value(s.m) * value(s.width);
    case OperatorKind::norm:
    case OperatorKind::embedding: return 2 * element * value(s.m) * value(s.hidden);
    case OperatorKind::permute:
    case OperatorKind::unpermute: return element * value(s.tokens * s.hidden) * value(s.top_k + 1);
    default: return op.activation_bytes.value();
  }
}

std::string_view nccl_name(OperatorKind kind) {
  switch (kind) {
    case OperatorKind::all_gather: return "all_gather";
    case OperatorKind::reduce_scatter: return "reduce_scatter";
    case OperatorKind::all_to_all_dispatch:
    case OperatorKind::all_to_all_combine: return "alltoall";
    default: return "all_reduce";
  }
}

bool is_training_collective(OperatorKind kind) {
  return kind == OperatorKind::all_reduce || nccl_name(kind) != "all_reduce";
}

template <class Cost>
Cost cost_of(const CompiledKernel::Answer& answer) {
  return {std::exp(answer.log_seconds), 0.5 * (answer.log_high - answer.log_low), answer.origin};
}

}  // namespace

GpuTrainingTimes::GpuTrainingTimes(const KernelCalibration& kernels, const Deployment& deployment,
                                   std::optional<std::int64_t> replicas)
    : kernels_(kernels), deployment_(deployment), replicas_(replicas) {
  std::tie(framework_, version_) = split_backend(deployment.backend);
  note("a training step on a GPU: kernels of inference stand for those of training; launches are not part of it");
}

void GpuTrainingTimes::note(const std::string& text) const {
  if (std::ranges::find(notes_, text) == notes_.end()) notes_.push_back(text);
}

GpuTrainingTimes::Cost GpuTrainingTimes::physics(double bytes, double flops) const {
  const double moving = bytes / (kTrainingBandwidth * kernels_.device.bandwidth);
  const double computing = flops / (kUsualPeak * kernels_.device.peak_bf16);
  return {kTrainingStart + std::max(moving, computing), kPhysicsHalfWidth, Origin::assumed};
}

ReadyKernel GpuTrainingTimes::linear(std::int64_t n, std::int64_t k, DType dtype) const {
  ReadyKernel& known = linear_[{n, k, dtype}];
  if (known) return known;
  const KernelLayout& layout = *find_kernel_layout("gemm");
  KernelRowValues row(layout);
  row.set("m", 1).set("n", value(std::max(n, kNarrowest))).set("k", value(k));
  known = find_ready_kernel(kernels_, {"gemm", "", "", framework_, version_, table_formats(dtype), true}, row);
  if (!known) {
    known = find_ready_kernel(kernels_, {"gemm", "", "", framework_, version_, {"bfloat16"}, true}, row);
    note(fmt::format("no linear layer in {}: bf16 stands for it", to_string(dtype)));
  }
  if (!known) throw InputError(kernels_.profile, "holds no linear layer", "moecast explain --hw lists kernels");
  return known;
}

GpuTrainingTimes::Cost GpuTrainingTimes::gemm(const Operator& op) const {
  const OperatorShape& s = op.shape;
  const KernelLayout& layout = *find_kernel_layout("gemm");
  const ReadyKernel kernel = linear(s.n, s.k, op.dtype);
  KernelRowValues row(layout);
  row.set("m", value(std::max<std::int64_t>(1, s.m))).set("n", value(std::max(s.n, kNarrowest))).set("k", value(s.k));
  auto cost = cost_of<Cost>(kernel->at(row));
  if (op.rows.empty()) return cost;
  // One GEMM over all rows reads one expert's weights, or writes one gradient: the others' come on top.
  const double others = value(std::max<std::int64_t>(1, s.experts) - 1);
  const double each =
      op.ragged_depth ? 4 * value(s.m) * value(s.n) : bytes_per_weight(op.dtype) * value(s.n) * value(s.k);
  cost.seconds += others * each / (kTrainingBandwidth * kernels_.device.bandwidth);
  cost.half_width = std::max(cost.half_width, kPhysicsHalfWidth / 2);
  cost.origin = weakest(cost.origin, Origin::extrapolated);
  return cost;
}

GpuTrainingTimes::Cost GpuTrainingTimes::attention(const Operator& op) const {
  const OperatorShape& s = op.shape;
  const KernelLayout& layout = *find_kernel_layout("context_attention");
  KernelRowValues row(layout);
  row.set("batch_size", value(s.batch)).set("isl", value(s.query)).set("num_heads", value(s.heads));
  row.set("num_key_value_heads", value(s.kv_heads)).set("head_dim", value(s.head_dim)).set("window_size", 0);
  const ReadyKernel kernel =
      s.visible > 0
          ? nullptr
          : find_ready_kernel(kernels_, {layout.name, "", "", framework_, version_, {"bfloat16+bfloat16"}, true}, row);
  if (kernel) return cost_of<Cost>(kernel->at(row));
  note("attention that no table holds (windows, latent attention): bytes and arithmetic at usual efficiencies");
  const double forward = op.flops.value() / op.work;
  return physics(op.activation_bytes.value() / 2, forward);
}

CollectiveCost GpuTrainingTimes::collective_of(const Operator& op) const {
  // Tensor-parallel ranks are neighbours, experts lie moe_tp apart, gradients are reduced over what is furthest apart.
  const bool experts = nccl_name(op.kind) == "alltoall";
  const std::int64_t all = stage_ranks(deployment_) * replicas_.value_or(1);
  std::int64_t ranks = op.shape.ranks;
  std::int64_t apart = 1;
  if (ranks > 0) {
    apart = std::max<std::int64_t>(1, all / ranks);
  } else if (experts) {
    ranks = deployment_.ep;
    apart = expert_tensor_ranks(deployment_);
  } else if (op.kind == OperatorKind::all_reduce) {
    ranks = deployment_.tp;
  } else {
    ranks = deployment_.dp;
    apart = deployment_.tp;
  }
  if (!replicas_) apart = 1;
  const std::int64_t node = kernels_.device.node_devices;
  const double nodes = value(std::min(ranks, (ranks * apart + node - 1) / node));
  return collective_cost(kernels_, nccl_name(op.kind), static_cast<int>(ranks), nodes);
}

double GpuTrainingTimes::start_s(const Operator& op) const {
  return is_training_collective(op.kind) ? collective_of(op).seconds(1) : 0;
}

GpuTrainingTimes::Cost GpuTrainingTimes::collective(const Operator& op) const {
  const CollectiveCost cost = collective_of(op);
  const double elements = value(op.shape.bytes) / kActivationBytes;
  if (cost.answer) return cost_of<Cost>(cost.answer(elements));
  note(fmt::format("{}: no measured collective; bytes over the link's bandwidth", nccl_name(op.kind)));
  return {cost.seconds(elements), kPhysicsHalfWidth, Origin::assumed};
}

OperatorTime GpuTrainingTimes::of(const Operator& op) const {
  const bool multiplies = op.kind == OperatorKind::gemm || op.kind == OperatorKind::grouped_gemm;
  const bool attends = op.kind == OperatorKind::attention_prefill || op.kind == OperatorKind::attention_decode;
  Cost cost;
  double bytes = op.weight_bytes.value() + op.activation_bytes.value();
  if (multiplies) {
    cost = gemm(op);
  } else if (attends) {
    cost = attention(op);
  } else if (is_training_collective(op.kind)) {
    cost = collective(op);
  } else {
    bytes = loop_bytes(op);
    cost = physics(bytes, 0);
  }
  OperatorTime time;
  const double seconds = cost.seconds * op.count * op.work;
  const double moving = bytes / kernels_.device.bandwidth;
  const double computing = op.flops.value() / kernels_.device.peak_bf16;
  const double share = moving + computing > 0 ? moving / (moving + computing) : 0;
  time.latency = Seconds(seconds);
  time.memory = Seconds(seconds * share);
  time.compute = Seconds(seconds * (1 - share));
  time.half_width = cost.half_width;
  time.origin = cost.origin;
  widen_if_akin(op, time);
  return time;
}

}  // namespace moecast
