#include "sim/step/recurrent_operators.h"

#include <algorithm>
#include <string>
#include <utility>

#include "models/core/count.h"
#include "models/core/error.h"
#include "sim/step/collective_cost.h"

namespace moecast {
namespace {

/// Of gated delta nets and their convolutions on B300, 1,079 and 1,177 decode rows, 9,643 and 11,324 of prompts
/// (tools/dev/usual_efficiencies.py).
constexpr UsualEfficiency kUpdate{0.8, 0.5, 3e-6, 0.27};
constexpr UsualEfficiency kScan{0.25, 0.05, 20e-6, 1.01};
constexpr UsualEfficiency kShift{0.8, 0.5, 3e-6, 0.48};
constexpr UsualEfficiency kConvolution{0.8, 0.5, 5e-6, 0.96};
/// The state is fp32, read and written.
constexpr double kStateBytes = 2 * 4;
/// Decay, update and readout of an element of the state.
constexpr double kStateFlops = 6;

/// What a rank does between the projections of such a block.
struct Recurrence {
  std::string name;
  double state = 0;     ///< elements of a sequence
  double columns = 0;   ///< elements of a token that are read and written
  double channels = 0;  ///< of the convolution before it
  double taps = 0;      ///< of that; 0: none
};

struct Load {
  double sequences = 0;
  double tokens = 0;
};

/// Sequences that generate, padded as replayed graphs are; with prompts all of the step.
Load load_of(const StepShape& shape, bool prefill) {
  if (prefill != (shape.prompts > 0)) return {};
  if (prefill) return {shape.prompts + shape.decodes, new_tokens(shape)};
  return {shape.rows, shape.rows};
}

StepWork state_work(const Recurrence& r, const Load& load) {
  return {kStateBytes * load.sequences * r.state + kActivationBytes * load.tokens * r.columns,
          kStateFlops * load.tokens * r.state};
}

void add_physics(const Recurrence& recurrence, double count, OperatorMaker& maker) {
  for (const bool prefill : {false, true}) {
    const std::string phase = prefill ? ".prefill" : ".decode";
    if (recurrence.taps > 0) {
      // A sequence's last inputs are kept for its next tokens.
      const double kept = kActivationBytes * 2 * recurrence.channels * (recurrence.taps - 1);
      maker.add_physics(recurrence.name + ".conv" + phase, StepGroup::recurrent, count, prefill ? kConvolution : kShift,
                        [kept, prefill, channels = recurrence.channels, taps = recurrence.taps](const StepShape& s) {
                          const Load load = load_of(s, prefill);
                          return StepWork{kept * load.sequences + kActivationBytes * 2 * load.tokens * channels,
                                          2 * load.tokens * channels * taps};
                        });
    }
    maker.add_physics(
        recurrence.name + ".state" + phase, StepGroup::recurrent, count, prefill ? kScan : kUpdate,
        [recurrence, prefill](const StepShape& s) { return state_work(recurrence, load_of(s, prefill)); });
  }
}

/// @return false, nothing added, where the profile holds no kernel of gated delta nets.
bool add_delta_net_kernels(const LinearAttentionSpec& linear, const Recurrence& recurrence, double count,
                           OperatorMaker& maker) {
  const KernelLayout& layout = *find_kernel_layout("gdn");
  KernelRowValues row(layout);
  row.set("batch_size", 1).set("seq_len", 1).set("d_model", value(maker.architecture.hidden));
  row.set("d_conv", value(linear.conv_size)).set("head_k_dim", value(linear.key_head_dim));
  row.set("head_v_dim", value(linear.value_head_dim));
  row.set("num_k_heads", value(maker.of_rank(linear.key_heads, "key heads")));
  row.set("num_v_heads", value(maker.of_rank(linear.value_heads, "value heads")));
  const ReadyKernel update = maker.find("gdn", "conv1d_update/generation", {}, row);
  const ReadyKernel recurrent = maker.find_first("gdn", {"packed_decode/generation", "delta_rule/generation"}, row);
  const ReadyKernel convolution = maker.find("gdn", "conv1d_fn/context", {}, row);
  const ReadyKernel chunk = maker.find_first("gdn", {"flashinfer/context", "delta_rule/context"}, row);
  if (!update || !recurrent || !convolution || !chunk) return false;
  const auto at = [row, batch = layout.column("batch_size"), length = layout.column("seq_len")](
                      const ReadyKernel& kernel, double sequences, double tokens) {
    KernelRowValues asked = row;
    return kernel->seconds(asked.set(batch, std::max(1.0, sequences)).set(length, std::max(1.0, tokens)));
  };
  maker
      .add("delta_net.decode", recurrent->described(), StepGroup::recurrent, count,
           [=](const StepShape& shape) {
             return shape.prompts > 0 ? 0.0 : at(update, shape.rows, 1) + at(recurrent, shape.rows, 1);
           })
      .work = [recurrence](const StepShape& s) { return state_work(recurrence, load_of(s, false)); };
  maker
      .add("delta_net.prefill", chunk->described(), StepGroup::recurrent, count,
           [=](const StepShape& shape) {
             if (shape.prompts == 0) return 0.0;
             const double tokens = shape.context / shape.prompts;
             const double riding =
                 shape.decodes > 0 ? at(chunk, shape.decodes + shape.prompts, 1) - at(chunk, shape.prompts, 1) : 0.0;
             return at(convolution, shape.prompts, tokens) + at(chunk, shape.prompts, tokens) + std::max(0.0, riding);
           })
      .work = [recurrence](const StepShape& s) { return state_work(recurrence, load_of(s, true)); };
  return true;
}

bool refuses_contexts(OperatorMaker& maker) {
  if (maker.deployment.cp > 1) maker.refuse("context parallelism of recurrent layers");
  return maker.deployment.cp > 1;
}

}  // namespace

void add_linear_attention(const AttentionBlock& block, double count, OperatorMaker& maker) {
  if (refuses_contexts(maker)) return;
  const LinearAttentionSpec& l = block.linear.value();
  const std::int64_t value_heads = maker.of_rank(l.value_heads, "value heads");
  const std::int64_t keys = maker.of_rank(l.key_heads, "key heads") * l.key_head_dim;
  const std::int64_t values = value_heads * l.value_head_dim;
  const std::int64_t hidden = maker.architecture.hidden;
  const auto gemm = [&](const std::string& name, std::int64_t n, std::int64_t k) {
    maker.add_gemm(name, StepGroup::gemm, n, k, count);
  };
  Recurrence recurrence{"delta_net", value(values) * value(l.key_head_dim), value(2 * keys + 2 * values),
                        value(2 * keys + values), value(l.conv_size)};
  if (block.kind == AttentionKind::lightning) {
    recurrence.name = "lightning";
    gemm("lightning.in", 2 * keys + 2 * values, hidden);
    gemm("lightning.out", hidden, values);
    return add_physics(recurrence, count, maker);
  }
  if (block.kind == AttentionKind::kimi_delta) {
    // The decay of every channel goes through a low rank, which all ranks compute.
    gemm("delta_net.qkvz", 2 * keys + 2 * values, hidden);
    gemm("delta_net.decay_beta", l.key_head_dim + value_heads, hidden);
    gemm("delta_net.decay", keys, l.key_head_dim);
    gemm("delta_net.out", hidden, values);
    return add_physics(recurrence, count, maker);
  }
  gemm("delta_net.qkvz", 2 * keys + 2 * values, hidden);
  gemm("delta_net.ba", 2 * value_heads, hidden);
  gemm("delta_net.out", hidden, values);
  if (!add_delta_net_kernels(l, recurrence, count, maker)) add_physics(recurrence, count, maker);
}

void add_state_space(const StateSpaceBlock& block, double count, OperatorMaker& maker) {
  if (refuses_contexts(maker)) return;
  const std::int64_t inner = maker.of_rank(block.inner_width, "inner width");
  const std::int64_t hidden = maker.architecture.hidden;
  const std::int64_t state = block.state_size;
  const auto gemm = [&](const std::string& name, std::int64_t n, std::int64_t k) {
    maker.add_gemm("state_space." + name, StepGroup::gemm, n, k, count);
  };
  Recurrence recurrence{"state_space", value(inner * state), 0, value(inner), value(block.conv_size)};
  if (block.version == 1) {
    const std::int64_t steps = block.dt_rank + 2 * state;
    gemm("in", 2 * inner, hidden);
    gemm("x", steps, inner);
    gemm("dt", inner, block.dt_rank);
    maker.narrow_reduces.push_back({"state_space.all_reduce", count, value(steps)});
    recurrence.columns = value(4 * inner + 2 * state);  // input, gate, time step and output of a channel; B and C
  } else {
    const std::int64_t heads = maker.of_rank(block.heads, "state-space heads");
    const std::int64_t shared = 2 * std::max<std::int64_t>(1, block.groups / maker.deployment.tp) * state;
    gemm("in", 2 * inner + shared + heads, hidden);
    recurrence.columns = value(3 * inner + shared + heads);
    recurrence.channels = value(inner + shared);
  }
  gemm("out", hidden, inner);
  add_physics(recurrence, count, maker);
}

void add_recurrent(const RecurrentBlock& block, double count, OperatorMaker& maker) {
  if (refuses_contexts(maker)) return;
  if (maker.deployment.tp > 1) {
    throw InputError("tp", "the state of an LSTM or GRU is not split over ranks",
                     "write --tp 1; --dp and --ep spread the rest of the model");
  }
  const std::int64_t gates = block.gates * block.width;
  const std::int64_t out = block.projection > 0 ? block.projection : block.width;
  maker.add_gemm("recurrent.in", StepGroup::gemm, gates, maker.architecture.hidden, count);
  // All sequences go on by a token together, those that generate in the first of these steps.
  const auto steps = [](const StepShape& s) { return s.prompts > 0 ? std::max(1.0, s.context / s.prompts) : 1.0; };
  const auto sequences = [](const StepShape& s) { return s.prompts > 0 ? s.prompts : std::max(1.0, s.rows); };
  const auto add_step = [&](const std::string& name, std::int64_t n, std::int64_t k) {
    LinearLayer kernel = maker.gemm_kernel(name, n, k, maker.dtype);
    maker
        .add(name, std::move(kernel.kernel), StepGroup::recurrent, count,
             [=, seconds = std::move(kernel.seconds)](const StepShape& s) {
               const double riding = s.prompts > 0 && s.decodes > 0 ? seconds(s.prompts + s.decodes) : 0.0;
               return (steps(s) - (riding > 0 ? 1 : 0)) * seconds(sequences(s)) + riding;
             })
        .work = [=, wide = value(n), deep = value(k), weight = bytes_per_weight(maker.dtype)](const StepShape& s) {
      const double rows = s.prompts > 0 ? new_tokens(s) : s.rows;
      return StepWork{steps(s) * weight * wide * deep + kActivationBytes * rows * (wide + deep),
                      2 * rows * wide * deep};
    };
  };
  add_step("recurrent.step", gates, out);
  if (block.projection > 0) add_step("recurrent.project", out, block.width);
  StepOperator& activation =
      maker.add("recurrent.gates", "physics", StepGroup::recurrent, count,
                [=, each = value(gates) * (4 + kActivationBytes), device = maker.calibration.device](
                    const StepShape& s) { return steps(s) * kShift.seconds({sequences(s) * each, 0}, device); });
  activation.spread = kShift.spread;
  activation.work = [each = value(gates) * (4 + kActivationBytes)](const StepShape& s) {
    return StepWork{each * (s.prompts > 0 ? new_tokens(s) : s.rows), 0};
  };
}

}  // namespace moecast
