#include "sim/step/step_operators.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <span>
#include <utility>

#include "models/core/count.h"
#include "models/core/error.h"
#include "models/plan/token_classes.h"
#include "sim/step/attention_operators.h"
#include "sim/step/expert_exchange.h"
#include "sim/step/expert_operators.h"
#include "sim/step/fullest_rank.h"
#include "sim/step/operator_maker.h"
#include "sim/step/recurrent_operators.h"
#include "sim/step/step_communication.h"

namespace moecast {
namespace {

class Maker {
 public:
  Maker(const Architecture& architecture, const Deployment& deployment, const EngineSpec& engine,
        const KernelCalibration& calibration, const StepRouting& routing, const StepStage& stage)
      : architecture_(architecture),
        deployment_(deployment),
        engine_(engine),
        calibration_(calibration),
        routing_(routing),
        stage_(stage),
        maker_(architecture, deployment, engine, calibration) {
    expert_dtype_ = deployment.dtype ? maker_.dtype : architecture.expert_dtype.value_or(maker_.dtype);
  }

  StepOperators make() {
    for (const Layer& layer : architecture_.decoder) {
      const auto same = std::ranges::find_if(seen_, [&](const auto& known) { return *known.first == layer; });
      if (same == seen_.end()) {
        seen_.emplace_back(&layer, 1);
      } else {
        ++same->second;
      }
      ++maker_.result.layers;
    }
    for (const auto& [layer, count] : seen_) {
      for (const Block& block : layer->blocks) add_block(block, count);
    }
    if (stage_.joins) {
      maker_.add_gemm("join", StepGroup::gemm, architecture_.hidden, 2 * architecture_.hidden, maker_.result.layers);
    }
    if (architecture_.vocabulary > 0) {
      maker_.add_gemm("head", StepGroup::head, vocabulary_of_rank(), architecture_.hidden, 1, StepRows::sequences,
                      DType::bf16);
    }
    if ((engine_.all_reduce_norms || !deployment_.all_reduce.empty()) &&
        deployment_.tp <= calibration_.device.node_devices) {
      maker_.result.fused_norms = all_reduces_;
    }
    add_communication({all_reduces_, stage_.embeds, routed_, is_wide(), splits_rows()}, maker_);
    note_version();
    note_physics();
    if (!is_wide()) maker_.result.shared_stream_rows = engine_.shared_stream_rows;  // DeepEP has streams of its own
    return std::move(maker_.result);
  }

 private:
  void add_block(const Block& block, double count) {
    bool reduces = true;
    if (const auto* attention = std::get_if<AttentionBlock>(&block)) {
      if (attention->linear) {
        add_linear_attention(*attention, count, maker_);
      } else {
        add_softmax_attention(*attention, count, maker_);
      }
    } else if (const auto* moe = std::get_if<MoeBlock>(&block)) {
      add_moe(*moe, count);
    } else if (const auto* dense = std::get_if<DenseFfnBlock>(&block)) {
      add_ffn("ffn", StepGroup::gemm, dense->ffn, 1, count);
    } else if (const auto* mixer = std::get_if<StateSpaceBlock>(&block)) {
      add_state_space(*mixer, count, maker_);
    } else {
      reduces = false;  // every rank does all of it
      if (const auto* recurrent = std::get_if<RecurrentBlock>(&block)) add_recurrent(*recurrent, count, maker_);
      if (const auto* convolution = std::get_if<ConvolutionBlock>(&block)) add_convolution(*convolution, count);
      if (const auto* own = std::get_if<OwnCostBlock>(&block)) add_own_cost(*own, count);
    }
    if (std::holds_alternative<MoeBlock>(block) && splits_rows()) reduces = false;  // experts' results are gathered
    if (deployment_.tp > 1 && reduces) all_reduces_ += count;
  }

  /// Of all channels together it is the linear layer that its inputs laid out make it; of groups of channels it moves
  /// them and multiplies little.
  void add_convolution(const ConvolutionBlock& block, double count) {
    const std::int64_t taps = block.kernel_height * block.kernel_width;
    if (block.groups <= 1) {
      maker_.note("convolutions: linear layers of the same shape stand for them");
      return maker_.add_gemm("convolution", StepGroup::gemm, block.out_channels, block.in_channels * taps, count);
    }
    const double weights = value(block.out_channels) * value(block.in_channels / block.groups) * value(taps);
    const double columns = value(block.in_channels + block.out_channels);
    maker_.add_physics("convolution", StepGroup::gemm, count, kUnknownKernel,
                       [weights, columns, bytes = bytes_per_weight(maker_.dtype)](const StepShape& shape) {
                         return StepWork{bytes * weights + kActivationBytes * shape.rows * columns,
                                         2 * shape.rows * weights};
                       });
  }

  void add_own_cost(const OwnCostBlock& block, double count) {
    const double weights = block.parameters * bytes_per_weight(maker_.dtype);
    maker_.add_physics(block.name, StepGroup::gemm, count, kUnknownKernel, [weights, block](const StepShape& shape) {
      return StepWork{weights + block.bytes_per_token * shape.rows, block.flops_per_token * shape.rows};
    });
  }

  void add_ffn(const std::string& name, StepGroup group, const ExpertSpec& spec, std::int64_t copies, double count) {
    const std::int64_t width = maker_.of_rank(spec.width * copies, name + " width");
    maker_.add_gemm(name + (spec.gated ? ".gate_up" : ".up"), group, width * (spec.gated ? 2 : 1), architecture_.hidden,
                    count * spec.depth);
    maker_.add_gemm(name + ".down", group, architecture_.hidden, width, count * spec.depth);
  }

  void add_moe(const MoeBlock& block, double count) {
    maker_.result.moe_layers += count;
    const bool modal = splits_by_modality(block);
    const bool known = std::ranges::all_of(block.experts, [&](const ExpertGroup& group) {
      return group.expert.kind == ExpertKind::ffn && group.modality.empty() != modal;
    });
    if (!known || (!modal && block.experts.size() != 1)) {
      maker_.refuse("experts that differ within a layer, or are no feed-forward networks");
    }
    const std::int64_t inner = block.latent_width > 0 ? block.latent_width : architecture_.hidden;
    add_router(block, count);
    if (block.latent_width > 0) {
      maker_.add_gemm("latent.in", StepGroup::gemm, inner, architecture_.hidden, count);
      maker_.add_gemm("latent.out", StepGroup::gemm, architecture_.hidden, inner, count);
    }
    const bool shares_kernel = has_shared_among_routed(block, inner);
    if (block.shared.count > 0 && !shares_kernel) {
      add_ffn("shared", StepGroup::shared, block.shared.expert, block.shared.count, count);
      if (block.shared.gate) maker_.add_gemm("shared.gate", StepGroup::shared, 1, architecture_.hidden, count);
    }
    if (block.dense_residual) add_ffn("dense_residual", StepGroup::shared, *block.dense_residual, 1, count);
    if (block.expert_count() > kMostExperts) return maker_.refuse("a layer of more than 131,072 experts");
    routed_.push_back({count, value(inner), value(block.expert_count()), value(block.router.top_k),
                       is_wide() ? place(chosen_of(block, block.expert_count())) : nullptr});
    if (!modal) {
      ExpertCall call = routed("experts", block, block.experts.front(), 1, inner, count);
      if (shares_kernel) call.shared = 1;
      return add_experts(call, deployment_, calibration_, maker_.result);
    }
    // Tokens of a modality run the kernel of its experts.
    Workload workload;
    workload.modalities = routing_.modalities;
    for (const TokenClass& tokens : token_classes(block, workload)) {
      for (const ExpertGroup& group : block.experts) {
        if (group.modality == tokens.name) {
          add_experts(routed("experts." + tokens.name, block, group, tokens.share, inner, count), deployment_,
                      calibration_, maker_.result);
        }
      }
    }
  }

  void add_router(const MoeBlock& block, double count) {
    const RouterSpec& router = block.router;
    if (router.attention) return maker_.refuse("a router whose tokens see each other");
    if (router.own_cost) {
      OwnCostBlock own = *router.own_cost;
      own.name = "router";
      return add_own_cost(own, count);
    }
    std::int64_t from = architecture_.hidden;
    for (const std::int64_t width : router.mlp_widths) {
      maker_.add_gemm("router", StepGroup::gemm, width, from, count, StepRows::tokens, DType::bf16);
      from = width;
    }
    maker_.add_gemm("router", StepGroup::gemm, router_width(block), from, count, StepRows::tokens, DType::bf16);
  }

  /// Columns that a token computes: of a hierarchy the coarse ones, and those of the fine routers that it passes.
  static std::int64_t router_width(const MoeBlock& block) {
    const std::int64_t coarse = block.router.coarse_experts;
    return coarse > 0 ? coarse + block.router.coarse_top_k * (block.expert_count() / coarse) : block.expert_count();
  }

  /// @param share  of the rows that these experts see.
  ExpertCall routed(const std::string& name, const MoeBlock& block, const ExpertGroup& group, double share,
                    std::int64_t width, double layers) {
    return {name,
            group.expert,
            group.count,
            block.router.top_k,
            width,
            share,
            layers,
            expert_dtype_,
            routing_.sigma,
            is_wide(),
            maker_.framework,
            maker_.version,
            place(chosen_of(block, group.count)),
            fullest(chosen_of(block, group.count)),
            routing_.load.has_value(),
            exact_loads(group.count),
            chosen_of(block, group.count).limit};
  }

  /// One more expert of the routed ones' kernel, as fusion has it.
  bool has_shared_among_routed(const MoeBlock& block, std::int64_t inner) {
    const std::vector<std::string>& kernels = engine_.shared_expert_kernels;
    if (kernels.empty() || block.shared.count != 1 || block.shared.gate || deployment_.ep > 1 || is_wide() ||
        block.experts.size() != 1 || !routing_.rows.empty() || block.latent_width > 0) {
      return false;
    }
    // The choice of DeepSeek's and GLM's gates appends it; others (Llama 4) have no room for one more.
    if (!block.router.selection_bias || block.router.top_k < 2) return false;
    if (block.shared.expert.width != block.experts.front().expert.width) return false;
    const ExpertCall call = routed("experts", block, block.experts.front(), 1, inner, 1);
    return std::ranges::find(kernels, expert_kernel(call, deployment_, calibration_)) != kernels.end();
  }

  /// Of every rank, where the rows of each expert are said; experts lie in their order.
  [[nodiscard]] std::vector<RankLoad> exact_loads(std::int64_t count) const {
    std::vector<RankLoad> loads;
    if (std::ssize(routing_.rows) != count) return loads;
    const auto local = static_cast<std::size_t>(divide_over(count, deployment_.ep, "experts", "ep"));
    for (std::size_t first = 0; first < routing_.rows.size(); first += local) {
      loads.push_back(rank_load_of(std::span(routing_.rows).subspan(first, local)));
    }
    return loads;
  }

  /// Experts that tokens choose among, and how.
  struct Chosen {
    std::int64_t count = 1;
    int top_k = 1;
    GroupLimit limit;
  };
  /// @param count  of a modality's experts, or all of the layer's; groups are of all.
  static Chosen chosen_of(const MoeBlock& block, std::int64_t count) {
    const bool whole = count == block.expert_count();
    return {count, block.router.top_k, whole ? GroupLimit{block.router.groups, block.router.top_groups} : GroupLimit{}};
  }

  /// Where experts are, once for all layers alike; nullptr where ranks see all rows and experts have no copies.
  [[nodiscard]] std::shared_ptr<const PlacedExperts> place(const Chosen& chosen) const {
    if (deployment_.redundant_experts == 0 && !is_wide()) return nullptr;
    return draw(chosen);
  }

  /// The fullest rank's load, where it is not that of all ranks.
  [[nodiscard]] std::function<RankLoad(double)> fullest(const Chosen& chosen) const {
    const std::int64_t count = chosen.count;
    const bool even = routing_.sigma <= kEvenSigma && !routing_.load;
    if (even || count > kMostDrawnExperts || count % deployment_.ep != 0) return {};
    if (!routing_.load) {
      return [rank = fullest_rank(static_cast<int>(count), chosen.top_k, deployment_.ep, routing_.sigma, chosen.limit)](
                 double tokens) { return rank->at(tokens); };
    }
    return [drawn = draw(chosen)](double tokens) { return drawn->at(tokens); };
  }

  [[nodiscard]] std::shared_ptr<const PlacedExperts> draw(const Chosen& chosen) const {
    ExpertLoad log_normal;
    log_normal.kind = LoadKind::log_normal;
    log_normal.parameter = routing_.sigma;
    return placed_experts(static_cast<int>(chosen.count), chosen.top_k, deployment_.ep, deployment_.redundant_experts,
                          routing_.load.value_or(log_normal), chosen.limit);
  }

  /// Another release's kernels, where the one that was asked for was not measured here.
  void note_version() {
    if (maker_.version.empty()) return;
    std::set<std::string> known;
    for (const KernelModel& kernel : calibration_.kernels) {
      if (kernel.key.framework == maker_.framework && kernel.key.layout == "moe") known.insert(kernel.key.version);
    }
    if (known.empty() || known.contains(maker_.version)) return;
    maker_.note(fmt::format("{} {} was not measured on {}: kernels of {} stand for it", maker_.framework,
                            maker_.version, calibration_.profile, fmt::join(known, ", ")));
  }

  /// What no measurement stands behind, once for all of the model.
  void note_physics() {
    std::string names;
    double widest = 0;
    std::set<std::string> listed;
    for (const StepOperator& op : maker_.result.operators) {
      if (op.kernel != "physics" || op.spread == 0 || !listed.insert(op.name).second) continue;
      names += (names.empty() ? "" : ", ") + op.name;
      widest = std::max(widest, op.spread);
    }
    if (names.empty()) return;
    maker_.note(
        fmt::format("physics only, no kernel was measured: {}; 90 % of such kernels lie within a factor of {:.1f}",
                    names, std::exp(widest)));
  }

  /// Rows travel to experts on several nodes by DeepEP.
  [[nodiscard]] bool is_wide() const {
    return engine_.deepep_between_nodes && is_wide_expert_parallelism(deployment_, node_devices()) &&
           std::ranges::any_of(calibration_.kernels, [](const KernelModel& k) {
             return k.key.layout == "wideep_deepep_ll" || k.key.layout == "wideep_deepep_normal";
           });
  }

  /// Columns of the head on a rank: engines pad the vocabulary to a whole number of them.
  [[nodiscard]] std::int64_t vocabulary_of_rank() const {
    return padded_vocabulary(architecture_.vocabulary, deployment_.tp) / deployment_.tp;
  }

  [[nodiscard]] int node_devices() const { return calibration_.device.node_devices; }

  /// With tensor parallelism too, and experts over all ranks: every rank takes its part of the rows.
  [[nodiscard]] bool splits_rows() const {
    return engine_.split_rows_to_experts && deployment_.tp > 1 && deployment_.dp > 1 && deployment_.ep > 1 &&
           !is_wide();
  }

  const Architecture& architecture_;
  const Deployment& deployment_;
  const EngineSpec& engine_;
  const KernelCalibration& calibration_;
  StepRouting routing_;
  StepStage stage_;
  DType expert_dtype_ = DType::bf16;
  double all_reduces_ = 0;
  std::vector<RoutedLayers> routed_;
  std::vector<std::pair<const Layer*, double>> seen_;
  OperatorMaker maker_;
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
