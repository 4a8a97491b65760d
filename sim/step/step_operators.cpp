#include "sim/step/step_operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "models/core/error.h"
#include "models/plan/token_classes.h"
#include "sim/cost/kernel/ready_kernel.h"
#include "sim/step/attention_view.h"
#include "sim/step/collective_cost.h"
#include "sim/step/context_parallel.h"
#include "sim/step/expert_exchange.h"
#include "sim/step/expert_operators.h"

namespace moecast {
namespace {

/// Where no table helps: shares of bandwidth and peak that such kernels usually reach, and their start.
constexpr double kUsualBandwidth = 0.7;
constexpr double kUsualPeak = 0.5;
constexpr double kUsualStart = 10e-6;
/// Narrowest linear layer of the tables.
constexpr std::int64_t kNarrowest = 32;
constexpr double kElement = kActivationBytes;

double value(std::int64_t x) { return static_cast<double>(x); }

class Maker {
 public:
  Maker(const Architecture& architecture, const Deployment& deployment, const EngineSpec& engine,
        const KernelCalibration& calibration, const StepRouting& routing, const StepStage& stage)
      : architecture_(architecture),
        deployment_(deployment),
        engine_(engine),
        calibration_(calibration),
        routing_(routing),
        stage_(stage) {
    std::tie(framework_, version_) = split_backend(deployment.backend);
    if (framework_.empty()) framework_ = engine.name;
    dtype_ = deployment.dtype.value_or(architecture.dtype);
    expert_dtype_ = deployment.dtype ? dtype_ : architecture.expert_dtype.value_or(dtype_);
    result_.hidden = value(architecture.hidden);
  }

  StepOperators make() {
    for (const Layer& layer : architecture_.decoder) {
      const auto same = std::ranges::find_if(seen_, [&](const auto& known) { return *known.first == layer; });
      if (same == seen_.end()) {
        seen_.emplace_back(&layer, 1);
      } else {
        ++same->second;
      }
      ++result_.layers;
    }
    for (const auto& [layer, count] : seen_) {
      for (const Block& block : layer->blocks) add_block(block, count);
    }
    if (architecture_.vocabulary > 0) {
      add_gemm("head", StepGroup::head, divide_over(architecture_.vocabulary, deployment_.tp, "vocabulary", "tp"),
               architecture_.hidden, 1, Rows::sequences, DType::bf16);
    }
    add_communication();
    return std::move(result_);
  }

 private:
  enum class Rows { tokens, sequences, encoded };

  static double count_of(Rows rows, const StepShape& shape) {
    switch (rows) {
      case Rows::tokens: return shape.rows;
      case Rows::sequences: return shape.decodes + shape.prompts;
      case Rows::encoded: return shape.prompts * shape.source;
    }
    return shape.rows;
  }

  StepOperator& add(std::string name, std::string kernel, StepGroup group, double count,
                    std::function<double(const StepShape&)> seconds) {
    result_.operators.push_back({std::move(name), std::move(kernel), group, count, std::move(seconds)});
    return result_.operators.back();
  }

  [[nodiscard]] ReadyKernel find(std::string_view layout, std::string_view part, std::vector<std::string> formats,
                                 const KernelRowValues& row, std::string_view only = {}) const {
    return find_ready_kernel(calibration_, {layout, part, only, framework_, version_, std::move(formats), true}, row);
  }

  /// Bytes and operations at usual efficiencies.
  [[nodiscard]] std::function<double(double bytes, double flops)> physics() const {
    const double bandwidth = kUsualBandwidth * calibration_.device.bandwidth;
    const double peak = kUsualPeak * calibration_.device.peak_bf16;
    return [=](double bytes, double flops) { return kUsualStart + std::max(bytes / bandwidth, flops / peak); };
  }

  void add_gemm(const std::string& name, StepGroup group, std::int64_t n, std::int64_t k, double count,
                Rows rows = Rows::tokens, std::optional<DType> dtype = std::nullopt) {
    const KernelLayout& layout = *find_kernel_layout("gemm");
    KernelRowValues row(layout);
    row.set("m", 1).set("n", value(std::max(n, kNarrowest))).set("k", value(k));
    const DType wanted = dtype.value_or(dtype_);
    ReadyKernel kernel = find("gemm", "", table_formats(wanted), row);
    // vLLM's fp8_block rows are bound by the host below a thousand rows; a replayed graph is not: per-tensor kernels
    // of the same shape say what the device takes.
    ReadyKernel other;
    const bool host_bound = wanted == DType::fp8_block && (!kernel || kernel->model.key.framework == "vllm");
    if (host_bound) other = find("gemm", "", {"fp8"}, row);
    if (!kernel) std::swap(kernel, other);
    if (!kernel) {
      kernel = find("gemm", "", {"bfloat16"}, row);
      if (!kernel)
        throw InputError(calibration_.profile, "holds no linear layer", "moecast explain --hw lists kernels");
      result_.notes.push_back(fmt::format("{}: no {} kernel, bf16 stands for it", name, to_string(wanted)));
    }
    const std::size_t m = layout.column("m");
    add(name, kernel->described(), group, count, [kernel, other, row, m, rows](const StepShape& shape) {
      KernelRowValues asked = row;
      const double asked_rows = count_of(rows, shape);
      if (rows == Rows::encoded && asked_rows == 0) return 0.0;  // encoded before: its keys and values are kept
      asked.set(m, std::max(1.0, asked_rows));
      const double seconds = kernel->seconds(asked);
      return other ? std::min(seconds, other->seconds(asked)) : seconds;
    }).work = [rows, wide = value(n), deep = value(k), weight = bytes_per_weight(wanted)](const StepShape& shape) {
      const double done = count_of(rows, shape);
      if (done == 0) return StepWork{};
      return StepWork{weight * wide * deep + kElement * done * (wide + deep), 2 * done * wide * deep};
    };
  }

  void add_block(const Block& block, double count) {
    if (const auto* attention = std::get_if<AttentionBlock>(&block)) {
      add_attention(*attention, count);
    } else if (const auto* moe = std::get_if<MoeBlock>(&block)) {
      add_moe(*moe, count);
    } else if (const auto* dense = std::get_if<DenseFfnBlock>(&block)) {
      add_ffn("ffn", StepGroup::gemm, dense->ffn, 1, count);
    } else {
      refuse("a block that is neither attention nor feed-forward");
    }
    if (deployment_.tp > 1) all_reduces_ += count;
  }

  void refuse(const std::string& what) {
    if (std::ranges::find(result_.not_executed, what) == result_.not_executed.end()) {
      result_.not_executed.push_back(what);
    }
  }

  void add_ffn(const std::string& name, StepGroup group, const ExpertSpec& spec, std::int64_t copies, double count) {
    const std::int64_t width = divide_over(spec.width * copies, deployment_.tp, name + " width", "tp");
    add_gemm(name + (spec.gated ? ".gate_up" : ".up"), group, width * (spec.gated ? 2 : 1), architecture_.hidden,
             count * spec.depth);
    add_gemm(name + ".down", group, architecture_.hidden, width, count * spec.depth);
  }

  void add_attention(const AttentionBlock& block, double count) {
    if (deployment_.cp > 1 && (block.linear || block.window > 0)) {
      return refuse("context parallelism of recurrent, windowed or chunked attention");
    }
    switch (block.kind) {
      case AttentionKind::full:
      case AttentionKind::sliding_window:
      case AttentionKind::chunked: return add_grouped_query(block, count);
      case AttentionKind::latent: return add_latent(block, count);
      case AttentionKind::sparse_latent:
        refuse("the indexer of sparse attention: dense latent attention stands for it");
        return add_latent(block, count);
      case AttentionKind::gated_delta_net: return add_delta_net(block, count);
      case AttentionKind::cross: return add_cross(block, count);
      default: refuse("attention that is neither grouped-query, cross, latent nor a gated delta net");
    }
  }

  void add_grouped_query(const AttentionBlock& block, double count) {
    const int tp = deployment_.tp;
    const std::int64_t heads = divide_over(block.heads, tp, "heads", "tp");
    const std::int64_t kv_heads = std::max<std::int64_t>(1, block.kv_heads / tp);
    const std::int64_t dim = block.head_dim;
    const std::int64_t value_dim = block.value_head_dim > 0 ? block.value_head_dim : dim;
    add_gemm("attention.qkv", StepGroup::gemm,
             heads * dim * (block.output_gate ? 2 : 1) + kv_heads * (dim + (block.shared_kv ? 0 : value_dim)),
             architecture_.hidden, count);
    add_gemm("attention.out", StepGroup::gemm, architecture_.hidden, heads * value_dim, count);
    const AttentionPairs pairs = block.causal ? AttentionPairs::causal : AttentionPairs::all;
    add_cores("attention", block, heads, kv_heads, pairs, count);
    share_context(value(kv_heads * (dim + (block.shared_kv ? 0 : value_dim))), heads, value_dim, count);
  }

  /// Attention proper, of steps that generate and of prompts.
  void add_cores(const std::string& prefix, const AttentionBlock& block, std::int64_t heads, std::int64_t kv_heads,
                 AttentionPairs pairs, double count) {
    const std::int64_t dim = block.head_dim;
    const std::vector<std::string> formats{"bfloat16+bfloat16", "bfloat16+fp8"};
    for (const bool prefill : {false, true}) {
      const KernelLayout& layout = *find_kernel_layout(prefill ? "context_attention" : "generation_attention");
      KernelRowValues row(layout);
      row.set("batch_size", 1).set("isl", 1).set("num_heads", value(heads)).set("num_key_value_heads", value(kv_heads));
      row.set("head_dim", value(dim)).set("window_size", value(block.window));
      const ReadyKernel kernel = find(layout.name, "", formats, row);
      const AttentionView view{prefill, pairs, value(std::max<std::int64_t>(1, block.source_layers))};
      const std::string name = prefix + (prefill ? ".prefill" : ".decode");
      if (!kernel) {
        add_attention_physics(name, view, 2 * kv_heads * dim, 4 * value(heads * dim), count);
      } else {
        add(name, kernel->described(), StepGroup::attention, count, attention_seconds(kernel, row, layout, view)).work =
            attention_work(view, 2 * kv_heads * dim, 4 * value(heads * dim));
      }
    }
  }

  /// Queries of the decoder, keys and values of what the encoder returned: projected when it is new.
  void add_cross(const AttentionBlock& block, double count) {
    if (deployment_.cp > 1) return refuse("context parallelism of cross attention");
    const int tp = deployment_.tp;
    const std::int64_t heads = divide_over(block.heads, tp, "heads", "tp");
    const std::int64_t kv_heads = std::max<std::int64_t>(1, block.kv_heads / tp);
    const std::int64_t value_dim = block.value_head_dim > 0 ? block.value_head_dim : block.head_dim;
    add_gemm("cross.q", StepGroup::gemm, heads * block.head_dim, architecture_.hidden, count);
    add_gemm("cross.kv", StepGroup::gemm, kv_heads * (block.head_dim + value_dim), stack_hidden(architecture_, true),
             count * value(std::max<std::int64_t>(1, block.source_layers)), Rows::encoded);
    add_gemm("cross.out", StepGroup::gemm, architecture_.hidden, heads * value_dim, count);
    add_cores("cross", block, heads, kv_heads, AttentionPairs::encoded, count);
  }

  /// After attention.prefill has been added: what context-parallel ranks exchange in such layers.
  void share_context(double cached, std::int64_t heads, std::int64_t value_dim, double count) {
    if (deployment_.cp == 1) return;
    context_attention_.push_back(
        {count, cached, value(heads * value_dim), value(heads), result_.operators.back().seconds});
  }

  void add_attention_physics(const std::string& name, const AttentionView& view, std::int64_t cached, double flops,
                             double count) {
    const auto work = attention_work(view, cached, flops);
    const auto cost = physics();
    add(name, "physics", StepGroup::attention, count, [=](const StepShape& shape) {
      if ((view.prefill ? shape.prompts : shape.decodes) == 0) return 0.0;
      const StepWork done = work(shape);
      return cost(done.bytes, done.flops);
    }).work = work;
  }

  void add_latent(const AttentionBlock& block, double count) {
    const LatentSpec& latent = block.latent.value();
    const std::int64_t heads = divide_over(block.heads, deployment_.tp, "heads", "tp");
    const std::int64_t query = latent.nope_head_dim + latent.rope_head_dim;
    const std::int64_t cached = latent.kv_rank + latent.rope_head_dim;
    if (latent.q_rank > 0) {
      add_gemm("attention.qkv_a", StepGroup::gemm, latent.q_rank + cached, architecture_.hidden, count);
      add_gemm("attention.q_b", StepGroup::gemm, heads * query, latent.q_rank, count);
    } else {
      add_gemm("attention.q", StepGroup::gemm, heads * query + cached, architecture_.hidden, count);
    }
    add_gemm("attention.out", StepGroup::gemm, architecture_.hidden, heads * latent.value_head_dim, count);
    // Decode multiplies by the absorbed projections of keys and values, prefill by the projections themselves.
    const auto cost = physics();
    const double absorbed = value(heads * latent.kv_rank) * value(latent.nope_head_dim + latent.value_head_dim);
    add("attention.absorbed", "physics", StepGroup::gemm, count, [=](const StepShape& shape) {
      return cost(absorbed * kElement + shape.rows * value(heads * (query + latent.kv_rank)) * kElement,
                  2 * shape.rows * absorbed);
    }).work = [=](const StepShape& shape) {
      return StepWork{absorbed * kElement + shape.rows * value(heads * (query + latent.kv_rank)) * kElement,
                      2 * shape.rows * absorbed};
    };
    result_.notes.emplace_back(
        "latent attention: physics; its tables are bound by the host at the lengths that decode asks for");
    add_attention_physics("attention.decode", {false}, cached, 2 * value(heads * (cached + latent.kv_rank)), count);
    add_attention_physics("attention.prefill", {true}, cached, 2 * value(heads * (query + latent.value_head_dim)),
                          count);
    share_context(value(cached), heads, latent.kv_rank, count);
  }

  void add_delta_net(const AttentionBlock& block, double count) {
    const LinearAttentionSpec& linear = block.linear.value();
    const int tp = deployment_.tp;
    const std::int64_t keys = divide_over(linear.key_heads, tp, "key heads", "tp");
    const std::int64_t values = divide_over(linear.value_heads, tp, "value heads", "tp");
    const std::int64_t inner = values * linear.value_head_dim;
    add_gemm("delta_net.qkvz", StepGroup::gemm, 2 * keys * linear.key_head_dim + 2 * inner, architecture_.hidden,
             count);
    add_gemm("delta_net.ba", StepGroup::gemm, 2 * values, architecture_.hidden, count);
    add_gemm("delta_net.out", StepGroup::gemm, architecture_.hidden, inner, count);
    const KernelLayout& layout = *find_kernel_layout("gdn");
    KernelRowValues row(layout);
    row.set("batch_size", 1).set("seq_len", 1).set("d_model", value(architecture_.hidden));
    row.set("d_conv", value(linear.conv_size)).set("num_k_heads", value(keys)).set("num_v_heads", value(values));
    row.set("head_k_dim", value(linear.key_head_dim)).set("head_v_dim", value(linear.value_head_dim));
    const ReadyKernel update = find("gdn", "conv1d_update/generation", {}, row);
    const ReadyKernel recurrent = find_first({"packed_decode/generation", "delta_rule/generation"}, row);
    const ReadyKernel convolution = find("gdn", "conv1d_fn/context", {}, row);
    const ReadyKernel chunk = find_first({"flashinfer/context", "delta_rule/context"}, row);
    if (!update || !recurrent || !convolution || !chunk) {
      return refuse("gated delta nets: the profile holds no kernel of theirs");
    }
    const std::size_t batch = layout.column("batch_size");
    const std::size_t length = layout.column("seq_len");
    const auto at = [=](const ReadyKernel& kernel, double sequences, double tokens) {
      KernelRowValues asked = row;
      return kernel->seconds(asked.set(batch, std::max(1.0, sequences)).set(length, std::max(1.0, tokens)));
    };
    const double state = value(values) * value(linear.key_head_dim) * value(linear.value_head_dim);
    const auto state_work = [state](double sequences, double tokens) {
      return StepWork{8 * sequences * state, 6 * tokens * state};  // fp32, read and written
    };
    add("delta_net.decode", recurrent->described(), StepGroup::recurrent, count, [=](const StepShape& shape) {
      return shape.prompts > 0 ? 0.0 : at(update, shape.rows, 1) + at(recurrent, shape.rows, 1);
    }).work = [=](const StepShape& shape) {
      return shape.prompts > 0 ? StepWork{} : state_work(shape.rows, shape.rows);
    };
    // Decodes ride along with prompts as sequences of one token.
    add("delta_net.prefill", chunk->described(), StepGroup::recurrent, count, [=](const StepShape& shape) {
      if (shape.prompts == 0) return 0.0;
      const double tokens = shape.context / shape.prompts;
      const double riding =
          shape.decodes > 0 ? at(chunk, shape.decodes + shape.prompts, 1) - at(chunk, shape.prompts, 1) : 0.0;
      return at(convolution, shape.prompts, tokens) + at(chunk, shape.prompts, tokens) + std::max(0.0, riding);
    }).work = [=](const StepShape& shape) {
      return shape.prompts > 0 ? state_work(shape.prompts + shape.decodes, shape.context + shape.decodes) : StepWork{};
    };
  }

  [[nodiscard]] ReadyKernel find_first(std::initializer_list<std::string_view> parts,
                                       const KernelRowValues& row) const {
    for (const std::string_view part : parts) {
      ReadyKernel kernel = find("gdn", part, {}, row);
      if (kernel && kernel->substitution.empty()) return kernel;
    }
    for (const std::string_view part : parts) {
      if (ReadyKernel kernel = find("gdn", part, {}, row)) return kernel;
    }
    return nullptr;
  }

  void add_moe(const MoeBlock& block, double count) {
    result_.moe_layers += count;
    const bool modal = splits_by_modality(block);
    const bool known = std::ranges::all_of(block.experts, [&](const ExpertGroup& group) {
      return group.expert.kind == ExpertKind::ffn && group.modality.empty() != modal;
    });
    if (!known || (!modal && block.experts.size() != 1)) {
      refuse("experts that differ within a layer, or are no feed-forward networks");
    }
    const std::int64_t inner = block.latent_width > 0 ? block.latent_width : architecture_.hidden;
    add_gemm("router", StepGroup::gemm, block.expert_count(), architecture_.hidden, count, Rows::tokens, DType::bf16);
    if (block.latent_width > 0) {
      add_gemm("latent.in", StepGroup::gemm, inner, architecture_.hidden, count);
      add_gemm("latent.out", StepGroup::gemm, architecture_.hidden, inner, count);
    }
    if (block.shared.count > 0) {
      add_ffn("shared", StepGroup::shared, block.shared.expert, block.shared.count, count);
      if (block.shared.gate) add_gemm("shared.gate", StepGroup::shared, 1, architecture_.hidden, count);
    }
    if (block.dense_residual) add_ffn("dense_residual", StepGroup::shared, *block.dense_residual, 1, count);
    routed_.push_back({count, value(inner), value(block.expert_count()), value(block.router.top_k)});
    if (block.expert_count() > kMostExperts) return refuse("a layer of more than 65,536 experts");
    if (!modal) return add_routed("experts", block, block.experts.front(), 1, inner, count);
    // Tokens of a modality run the kernel of its experts.
    Workload workload;
    workload.modalities = routing_.modalities;
    for (const TokenClass& tokens : token_classes(block, workload)) {
      for (const ExpertGroup& group : block.experts) {
        if (group.modality == tokens.name) {
          add_routed("experts." + tokens.name, block, group, tokens.share, inner, count);
        }
      }
    }
  }

  /// @param share  of the rows that these experts see.
  void add_routed(const std::string& name, const MoeBlock& block, const ExpertGroup& group, double share,
                  std::int64_t width, double layers) {
    add_experts({name, group.expert, group.count, block.router.top_k, width, share, layers, expert_dtype_,
                 routing_.sigma, is_wide(), framework_, version_},
                deployment_, calibration_, result_);
  }

  void add_collective(const std::string& name, const CollectiveCost& cost, double count, double StepShape::* rows) {
    result_.collectives += count;
    if (!cost.answer) result_.notes.push_back(name + ": no measured collective; bytes over the link's bandwidth");
    add(name, cost.kernel, StepGroup::communication, count,
        [seconds = cost.seconds, rows, hidden = value(architecture_.hidden)](const StepShape& shape) {
          return seconds(shape.*rows * hidden);
        });
  }

  /// Rows travel to experts on several nodes by DeepEP.
  [[nodiscard]] bool is_wide() const {
    return engine_.deepep_between_nodes && is_wide_expert_parallelism(deployment_) &&
           std::ranges::any_of(calibration_.kernels, [](const KernelModel& k) {
             return k.key.layout == "wideep_deepep_ll" || k.key.layout == "wideep_deepep_normal";
           });
  }

  void add_communication() {
    const int tp = deployment_.tp;
    if (tp > 1) {  // stays inside a node
      add_collective("all_reduce", engine_all_reduce_cost(calibration_, framework_, version_, tp),
                     all_reduces_ + (stage_.embeds ? 1 : 0), &StepShape::rows);
    }
    if (stage_ranks(deployment_) > kNodeDevices) {
      result_.notes.push_back(fmt::format("nodes of {} devices; collectives between nodes by their law", kNodeDevices));
    }
    if (deployment_.cp > 1) {
      add_context_parallel(context_attention_, deployment_, engine_, calibration_, result_);
      return;
    }
    if (is_wide() && !routed_.empty() && std::ranges::all_of(routed_, [&](const RoutedLayers& layers) {
          return add_deepep_exchange(layers, deployment_, calibration_, result_);
        })) {
      return;
    }
    const int dp = deployment_.dp;
    if (dp > 1 && result_.moe_layers > 0) {  // replicas of attention lie across nodes
      const int nodes = std::min(dp, (stage_ranks(deployment_) + kNodeDevices - 1) / kNodeDevices);
      for (const std::string operation : {"all_gather", "reduce_scatter"}) {
        add_collective(operation, collective_cost(calibration_, operation, dp, nodes), result_.moe_layers,
                       &StepShape::expert_rows);
      }
    }
  }

  const Architecture& architecture_;
  const Deployment& deployment_;
  const EngineSpec& engine_;
  const KernelCalibration& calibration_;
  StepRouting routing_;
  StepStage stage_;
  std::string framework_, version_;
  DType dtype_ = DType::bf16;
  DType expert_dtype_ = DType::bf16;
  double all_reduces_ = 0;
  std::vector<ContextAttention> context_attention_;
  std::vector<RoutedLayers> routed_;
  std::vector<std::pair<const Layer*, double>> seen_;
  StepOperators result_;
};

}  // namespace

std::string_view to_string(StepGroup group) {
  constexpr std::array<std::string_view, kStepGroups> kNames{"gemm",      "shared", "experts",      "recurrent",
                                                             "attention", "head",   "communication"};
  return kNames[static_cast<std::size_t>(group)];
}

StepOperators make_step_operators(const Architecture& architecture, const Deployment& deployment,
                                  const EngineSpec& engine, const KernelCalibration& calibration,
                                  const StepRouting& routing, const StepStage& stage) {
  return Maker(architecture, deployment, engine, calibration, routing, stage).make();
}

}  // namespace moecast
