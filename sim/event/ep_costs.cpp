#include "sim/event/ep_costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "sim/cost/kernel/expert_traffic.h"
#include "sim/cost/kernel/ready_kernel.h"
#include "sim/cost/kernel/unfitted_law.h"
#include "sim/step/collective_cost.h"
#include "sim/step/expert_operators.h"
#include "sim/step/linear_layer.h"
#include "sim/step/usual_efficiency.h"

namespace moecast {
namespace {

class CostMaker {
 public:
  CostMaker(std::shared_ptr<const KernelCalibration> calibration, const EpLayer& layer, const Topology& measured)
      : calibration_(std::move(calibration)), layer_(layer), topology_(measured), device_(calibration_->device) {
    if (topology_.port_bandwidth() > 0) device_.link = topology_.port_bandwidth();
    if (topology_.nic_bandwidth() > 0) device_.nic = topology_.nic_bandwidth();
    framework_ = layer.framework.empty() ? std::string(framework_of(layer.method)) : layer.framework;
  }

  EpCosts make() {
    add_router();
    add_shared();
    switch (layer_.method) {
      case DispatchMethod::low_latency: add_low_latency(); break;
      case DispatchMethod::normal: add_normal(); break;
      case DispatchMethod::one_sided: add_one_sided(); break;
      case DispatchMethod::nccl: add_nccl(); break;
    }
    add_experts();
    order_pieces();
    return std::move(result_);
  }

 private:
  [[nodiscard]] double ranks() const { return topology_.ranks(); }

  ReadyKernel find(std::string_view layout, std::string_view part, const std::string& framework,
                   const std::vector<std::string>& formats, const KernelRowValues& row,
                   std::string_view only = {}) const {
    return find({layout, part, only, framework, "", formats}, row);
  }

  ReadyKernel find(const KernelWanted& wanted, const KernelRowValues& row) const {
    const auto ready = find_ready_kernel(*calibration_, wanted, row);
    if (ready) move_to_links(*ready, calibration_->device, device_, topology_.nodes() > 1, row);
    return ready;
  }

  [[noreturn]] void missing(std::string_view what) const {
    throw InputError(calibration_->profile,
                     fmt::format("holds no kernel for {} ({}, {})", what, to_string(layer_.method), framework_),
                     "moecast explain --hw NAME lists what it holds; --dtype, --dispatch and --backend choose others");
  }

  void add_piece(std::string_view stage, const ReadyKernelData& kernel, const CompiledKernel::Answer& answer,
                 double factor = 1) {
    result_.pieces.push_back({std::string(stage), kernel.model.key.text(), kernel.substitution,
                              std::exp(answer.log_seconds) * factor, answer.log_low - answer.log_seconds,
                              answer.log_high - answer.log_seconds, answer.origin});
  }

  /// Seconds of a linear layer; noted as a piece of the stage.
  double add_gemm(std::string_view stage, double n, double k, DType format) {
    const LinearLayer layer = find_linear_layer(*calibration_, {framework_, layer_.version, layer_.constant_scales},
                                                static_cast<std::int64_t>(n), static_cast<std::int64_t>(k), format);
    const double rows = std::max(1.0, std::round(layer_.own_rows > 0 ? layer_.own_rows : layer_.tokens_per_rank));
    const double seconds = layer.seconds(rows);
    if (!layer.known) {
      result_.pieces.push_back({std::string(stage), layer.kernel, "", seconds, -kUnknownKernel.spread,
                                kUnknownKernel.spread, Origin::assumed});
      return seconds;
    }
    KernelRowValues row = layer.row;
    const auto answer = layer.known->at(row.set("m", rows));
    add_piece(stage, *layer.known, answer, seconds / std::exp(answer.log_seconds));
    return seconds;
  }

  void add_router() {
    const DType format = DType::bf16;
    double& seconds = result_.costs.router_s;
    if (layer_.router_network) {
      double from = input();
      for (const std::int64_t hidden : layer_.router_hidden) {
        seconds += add_gemm("router", static_cast<double>(hidden), from, format);
        from = static_cast<double>(hidden);
      }
      seconds += add_gemm("router", static_cast<double>(layer_.experts), from, format);
      result_.notes.emplace_back("the router is its GEMM in bf16; no table holds the selection of the top k");
    }
    if (!layer_.input) return;
    const auto hidden = static_cast<double>(layer_.hidden);
    const DType own = layer_.shared_dtype;
    seconds += add_gemm("router", hidden, input(), own) + add_gemm("router", input(), hidden, own);
    result_.notes.emplace_back("projections to the experts' width and back are counted with the router");
  }

  /// Width of the layer's tokens.
  [[nodiscard]] double input() const { return static_cast<double>(layer_.input.value_or(layer_.hidden)); }

  void add_shared() {
    if (layer_.shared_width == 0) return;
    const auto width = static_cast<double>(layer_.shared_width);
    const double hidden = input();
    const DType format = layer_.shared_dtype;
    result_.costs.shared_s = add_gemm("shared", (layer_.matrices - 1) * width, hidden, format);
    result_.costs.shared_s += add_gemm("shared", hidden, width, format);
    if (layer_.shared_gate) result_.costs.shared_s += add_gemm("shared", 1, hidden, format);
  }

  /// DeepEP knows nodes of eight devices.
  double deepep_nodes() {
    const int per_node = topology_.ranks_per_node();
    if (topology_.nodes() > 1 && per_node != static_cast<int>(kDevicesPerNode)) {
      throw InputError("cluster", fmt::format("has {} devices a node; DeepEP was measured on nodes of 8", per_node),
                       "--dispatch nccl or nvlink-one-sided, or a cluster of nodes of 8");
    }
    if (topology_.nodes() == 1 && ranks() > kDevicesPerNode) {
      throw InputError("cluster",
                       fmt::format("joins {} ranks by one scale-up link; DeepEP was measured on nodes of 8", ranks()),
                       "--dispatch nvlink-one-sided or nccl");
    }
    if (topology_.nodes() == 1 && ranks() < kDevicesPerNode) {
      result_.notes.push_back(
          fmt::format("DeepEP was measured on 8 ranks a node; its bytes are scaled to {}", ranks()));
    } else if (std::fmod(ranks(), kDevicesPerNode) != 0) {
      result_.notes.emplace_back("the last node is not full: laws are those of full nodes");
    }
    return topology_.nodes();
  }

  /// Bytes that leave a rank, over those of full nodes of eight.
  [[nodiscard]] double fewer_ranks() const {
    const double full = kDevicesPerNode * topology_.nodes();
    return ranks() >= full ? 1 : (ranks() - 1) / ranks() / ((full - 1) / full);
  }

  KernelRowValues deepep_row(const KernelLayout& layout, double nodes) const {
    KernelRowValues row(layout);
    row.set("num_token", std::max(1.0, layer_.tokens_per_rank))
        .set("hidden_size", static_cast<double>(layer_.hidden))
        .set("num_topk", static_cast<double>(layer_.top_k))
        .set("num_experts", static_cast<double>(layer_.experts))
        .set("node_num", nodes);
    return row;
  }

  /// Seconds of dispatch and combine from rows that `scaled` makes of an imbalance.
  /// @param extra  seconds that come on top, before bytes flow.
  template <typename Scaled>
  void add_exchange(std::string_view layout, const Scaled& scaled, std::array<double, 2> extra = {0, 0}) {
    constexpr std::array<std::string_view, 2> kStages{"dispatch", "combine"};
    for (std::size_t i = 0; i < 2; ++i) {
      const KernelRowValues even = scaled(1.0, i == 1);
      const ReadyKernel kernel = find(layout, exchange_part(i), framework_, {}, even);
      if (!kernel) missing(kStages[i]);
      const auto answer = kernel->at(even);
      const double measured = std::min(kernel->seconds(scaled(1 / std::max(1.0, layer_.tokens_per_rank), i == 1)),
                                       std::exp(answer.log_seconds));
      extra[i] += later_start(extra[i] + measured);
      const double start = extra[i] + measured;
      add_piece(kStages[i], *kernel, answer, 1 + extra[i] / std::exp(answer.log_seconds));
      auto cost = [kernel, scaled, back = i == 1, more = extra[i]](double imbalance) {
        return more + kernel->seconds(scaled(imbalance, back));
      };
      (i == 0 ? result_.costs.dispatch_start_s : result_.costs.combine_start_s) = start;
      (i == 0 ? result_.costs.dispatch_s : result_.costs.combine_s) = std::move(cost);
    }
  }

  /// Seconds by which the cluster's file has a message start later than where the law was measured.
  double later_start(double start_s) {
    if (ranks() <= 1) return 0;
    const auto known = topology_.message_latency(topology_.nodes() > 1);
    if (!known || *known <= start_s) return 0;
    const std::string text = fmt::format("an exchange starts after {}, as the cluster's file says of a message",
                                         format_seconds(Seconds(*known)));
    if (std::ranges::find(result_.notes, text) == result_.notes.end()) result_.notes.push_back(text);
    return *known - start_s;
  }

  [[nodiscard]] std::string_view exchange_part(std::size_t i) const {
    if (layer_.exchange == ExchangeAlgorithm::all_gather) return i == 0 ? "all_gather" : "reduce_scatter";
    if (layer_.method == DispatchMethod::nccl) return "alltoall";
    return i == 0 ? "dispatch" : "combine";
  }

  void add_low_latency() {
    const KernelLayout& layout = *find_kernel_layout("wideep_deepep_ll");
    const double nodes = deepep_nodes();
    const KernelRowValues base = deepep_row(layout, nodes);
    const double rows = layer_.tokens_per_rank * static_cast<double>(layer_.top_k) * fewer_ranks();
    add_exchange(layout.name, [base, rows](double imbalance, bool /*back*/) {
      KernelRowValues row = base;
      return row.set(kSentRowsColumn, rows * imbalance);
    });
    result_.traffic.deduplication = Deduplication::per_expert;
    result_.traffic.dispatch_row_bytes = dispatch_row_bytes(static_cast<double>(layer_.hidden));
  }

  /// Seconds in which two nodes and more exchange how many tokens will come: of this machine where it was measured,
  /// else what the law expects anywhere.
  double notify_s(const KernelLayout& layout, std::string_view part, const KernelRowValues& row) {
    if (topology_.nodes() < 2) return 0;
    if (const ReadyKernel known = find(layout.name, part, framework_, {}, row)) return known->seconds(row);
    const double seconds =
        unfitted_seconds({framework_, "", std::string(layout.name), std::string(part), ""}, device_, row.span());
    result_.notes.push_back(
        fmt::format("{}: {:.0f} us assumed, nothing measured on this machine", part, 1e6 * seconds));
    return seconds;
  }

  void add_normal() {
    const KernelLayout& layout = *find_kernel_layout("wideep_deepep_normal");
    const double nodes = deepep_nodes();
    KernelRowValues base = deepep_row(layout, nodes);
    base.set("dispatch_sms", kDispatchMultiprocessors);
    const double tokens = layer_.tokens_per_rank * fewer_ranks();
    const std::array<double, 2> notify{notify_s(layout, "dispatch_notify", base),
                                       notify_s(layout, "combine_notify", base)};
    add_exchange(
        layout.name,
        [base, tokens](double imbalance, bool /*back*/) {
          KernelRowValues row = base;
          return row.set("num_token", std::max(tokens * imbalance, 1.0));
        },
        notify);
    result_.notes.push_back(fmt::format("DeepEP uses {:.0f} multiprocessors", kDispatchMultiprocessors));
    result_.traffic.deduplication = topology_.nodes() > 1 ? Deduplication::per_node : Deduplication::per_rank;
    result_.traffic.ranks_per_node = topology_.ranks_per_node();
    result_.traffic.dispatch_row_bytes = dispatch_row_bytes(static_cast<double>(layer_.hidden));
  }

  void add_one_sided() {
    if (topology_.nodes() > 1) {
      throw InputError("cluster", "spans several nodes; one-sided writes stay inside one NVLink domain",
                       "--dispatch deepep-normal or nccl");
    }
    const KernelLayout& layout = *find_kernel_layout("nvlink_one_sided");
    const auto hidden = static_cast<double>(layer_.hidden);
    const double element = layer_.dtype == DType::nvfp4                                 ? 0.5625
                           : layer_.dtype == DType::bf16 || layer_.dtype == DType::fp16 ? 2
                                                                                        : 1.03125;
    const double copies =
        distinct_groups(ranks(), static_cast<double>(layer_.experts), static_cast<double>(layer_.top_k));
    KernelRowValues base(layout);
    base.set("tokens_per_rank", layer_.tokens_per_rank)
        .set("hidden", hidden)
        .set("topk", static_cast<double>(layer_.top_k))
        .set("num_experts", static_cast<double>(layer_.experts))
        .set("ep_size", ranks());
    // The way back is not quantised.
    add_exchange(layout.name, [base, copies, element](double imbalance, bool back) {
      KernelRowValues row = base;
      return row.set("element_bytes", back ? 2 : element).set(kCopiesColumn, std::max(copies * imbalance, 1e-3));
    });
    result_.traffic.deduplication = Deduplication::per_rank;
    result_.traffic.dispatch_row_bytes = hidden * element;
  }

  /// The sum of what the experts of all ranks made of rows that every rank has.
  void add_all_reduce() {
    const double elements = layer_.tokens_per_rank * ranks() * static_cast<double>(layer_.hidden);
    const int count = topology_.ranks();
    const CollectiveCost reduce = topology_.nodes() == 1
                                      ? engine_all_reduce_cost(*calibration_, framework_, layer_.version, count)
                                      : collective_cost(*calibration_, "all_reduce", count, topology_.nodes());
    const auto seconds = [each = reduce.seconds, elements](double imbalance) {
      return each(std::max(1.0, elements * imbalance));
    };
    result_.costs.dispatch_s = [](double) { return 0.0; };
    result_.costs.combine_s = seconds;
    result_.costs.combine_start_s = std::min(seconds(1 / std::max(1.0, layer_.tokens_per_rank)), seconds(1));
    EpPiece piece{"combine", reduce.kernel, "", seconds(1)};
    if (reduce.answer) {
      const auto answer = reduce.answer(elements);
      piece.log_low = answer.log_low - answer.log_seconds;
      piece.log_high = answer.log_high - answer.log_seconds;
      piece.origin = answer.origin;
    }
    result_.pieces.push_back(std::move(piece));
    result_.traffic.dispatch_row_bytes = static_cast<double>(layer_.hidden) * kActivationBytes;
  }

  void add_nccl() {
    if (layer_.exchange == ExchangeAlgorithm::all_reduce && ranks() > 1) return add_all_reduce();
    const KernelLayout& layout = *find_kernel_layout("nccl");
    const auto hidden = static_cast<double>(layer_.hidden);
    constexpr double kElement = 2;
    const double copies =
        distinct_groups(ranks(), static_cast<double>(layer_.experts), static_cast<double>(layer_.top_k));
    const bool gathered = layer_.exchange == ExchangeAlgorithm::all_gather;
    const double elements = layer_.tokens_per_rank * (gathered ? ranks() : copies) * hidden;
    KernelRowValues base(layout);
    base.set("num_gpus", ranks()).set("element_bytes", kElement).set("node_num", topology_.nodes()).set("eager", 0);
    if (ranks() > 1) {
      const std::string framework = framework_;
      framework_ = "nccl";
      add_exchange(layout.name, [base, elements](double imbalance, bool /*back*/) {
        KernelRowValues row = base;
        return row.set("message_size", std::max(1.0, elements * imbalance));
      });
      framework_ = framework;
      result_.notes.emplace_back(gathered
                                     ? "NCCL's all-gather of all tokens in bf16, and its reduce-scatter; graph replay"
                                     : "NCCL's all-to-all of rows in bf16, a copy a rank; graph replay");
    } else {
      result_.costs.dispatch_s = result_.costs.combine_s = [](double) { return 0.0; };
    }
    const bool by_node = layer_.exchange == ExchangeAlgorithm::hierarchical && topology_.nodes() > 1;
    result_.traffic.deduplication = by_node ? Deduplication::per_node : Deduplication::per_rank;
    result_.traffic.ranks_per_node = topology_.ranks_per_node();
    result_.traffic.dispatch_row_bytes = hidden * kElement;
  }

  /// The kernels that run behind the dispatch where they were measured on this shape, else those of whole layers.
  void add_experts() {
    if (sees_all_rows()) return add_whole_layer();
    std::vector<std::pair<std::string_view, bool>> tries;  // and whether the kernel must be near
    if (layer_.kernel.empty() && layer_.method == DispatchMethod::low_latency) {
      tries.push_back({"wideep_generation_moe", true});
    }
    if (layer_.kernel.empty() && layer_.method == DispatchMethod::normal) tries.push_back({"wideep_context_moe", true});
    tries.push_back({"moe", false});
    tries.push_back({"wideep_generation_moe", false});
    tries.push_back({"wideep_context_moe", false});
    const double tokens = std::max(1.0, layer_.tokens_per_rank * ranks() / layer_.chunks);
    const RankLoad even = uniform_load(tokens);
    for (const auto& [name, must_be_near] : tries) {
      const KernelLayout& layout = *find_kernel_layout(name);
      const bool local = name == "moe";
      const KernelRowValues row = local ? local_row(layout, even) : rank_row(layout, tokens);
      KernelWanted wanted{name, "", layer_.kernel, framework_, "", table_formats(layer_.dtype)};
      if (local) wanted.picked_by = rank_row(layout, tokens);
      const ReadyKernel kernel = find(wanted, row);
      if (!kernel) continue;
      if (must_be_near && kernel->compiled.sigma() > kNearShape) continue;
      if (const std::string guess = kernel->guess(); !guess.empty()) result_.notes.push_back("experts: " + guess);
      add_piece("experts", *kernel, kernel->at(row, even), layer_.chunks);
      const double top_k = local ? local_top_k() : 0;
      result_.costs.experts_s = [kernel, row, top_k](const RankLoad& load) {
        KernelRowValues asked = row;
        if (top_k > 0) asked.set("num_tokens", std::max(1.0, load.rows / top_k));
        return kernel->seconds(asked, load);
      };
      if (local && ranks() > 1) {
        result_.notes.emplace_back(
            "experts: kernels of whole layers, asked for a layer of one rank's experts and the rows that reach it");
      }
      return;
    }
    missing("experts of " + std::string(to_string(layer_.dtype)));
  }

  /// A rank that gathered the tokens of all, or is alone, computes its experts' share of them: the law of the closed
  /// form, asked with what was drawn.
  [[nodiscard]] bool sees_all_rows() const {
    return layer_.kernel.empty() && (moecast::sees_all_rows(layer_.exchange) || ranks() == 1) &&
           layer_.experts % topology_.ranks() == 0;
  }

  void add_whole_layer() {
    ExpertCall call;
    call.expert.width = layer_.width;
    call.expert.gated = layer_.matrices == 3;
    call.count = layer_.experts;
    call.top_k = static_cast<int>(layer_.top_k);
    call.width = layer_.hidden;
    call.dtype = layer_.dtype;
    call.sigma = layer_.popularity_sigma;
    call.framework = framework_;
    call.version = layer_.version;
    Deployment deployment;
    deployment.ep = topology_.ranks();
    deployment.moe_tp = 1;
    const auto law = whole_layer_experts(call, deployment, *calibration_, result_.notes);
    if (!law) missing("experts of " + std::string(to_string(layer_.dtype)));
    const double tokens = std::max(1.0, layer_.tokens_per_rank * ranks() / layer_.chunks);
    const RankLoad even = uniform_load(tokens);
    const auto answer = law->best().at(law->row(tokens), even);
    add_piece("experts", law->best(), answer,
              layer_.chunks * law->seconds(tokens, even.distinct, even) / std::exp(answer.log_seconds));
    result_.costs.experts_s = [law = *law, tokens](const RankLoad& load) {
      return law.seconds(tokens, load.distinct, load);
    };
  }

  /// Experts that a token which reaches a rank uses there, at most.
  [[nodiscard]] double local_top_k() const {
    const double local = std::max(1.0, std::round(static_cast<double>(layer_.experts) / ranks()));
    return std::min(static_cast<double>(layer_.top_k), local);
  }

  /// One rank's experts as a layer of their own: behind a dispatch a kernel sees the rows that arrived, not all.
  [[nodiscard]] KernelRowValues local_row(const KernelLayout& layout, const RankLoad& load) const {
    KernelRowValues row = rank_row(layout, std::max(1.0, load.rows / local_top_k()));
    row.set("topk", local_top_k())
        .set("num_experts", std::max(1.0, std::round(static_cast<double>(layer_.experts) / ranks())))
        .set("moe_ep_size", 1);
    return row;
  }

  /// One of many ranks, as tables have it that were measured behind a dispatch. @param tokens  of all ranks.
  [[nodiscard]] KernelRowValues rank_row(const KernelLayout& layout, double tokens) const {
    KernelRowValues row(layout);
    row.set("num_tokens", tokens)
        .set("hidden_size", static_cast<double>(layer_.hidden))
        .set("inter_size", static_cast<double>(layer_.width))
        .set("topk", static_cast<double>(layer_.top_k))
        .set("num_experts", static_cast<double>(layer_.experts))
        .set("moe_tp_size", 1)
        .set("moe_ep_size", ranks())
        .set(kDistributionColumn, std::min(1.2, std::log1p(layer_.load_variation) / std::log(2.8)))
        .set(kMatricesColumn, layer_.matrices);
    return row;
  }

  [[nodiscard]] RankLoad uniform_load(double tokens) const {
    const double rows = tokens * static_cast<double>(layer_.top_k) / ranks();
    const double local = static_cast<double>(layer_.experts) / ranks();
    const double mean = rows / local;
    return {rows, local * (1 - std::exp(-mean)), mean + std::sqrt(2 * mean * std::log(std::max(2.0, local)))};
  }

  void order_pieces() {
    constexpr std::array<std::string_view, 5> kOrder{"router", "shared", "dispatch", "experts", "combine"};
    std::ranges::stable_sort(result_.pieces, {}, [&](const EpPiece& piece) {
      return std::ranges::find(kOrder, piece.stage) - kOrder.begin();
    });
  }

  std::shared_ptr<const KernelCalibration> calibration_;
  const EpLayer& layer_;
  const Topology& topology_;
  DeviceLimits device_;
  std::string framework_;
  EpCosts result_;
};

}  // namespace

EpCosts make_ep_costs(const std::shared_ptr<const KernelCalibration>& calibration, const EpLayer& layer,
                      const Topology& measured) {
  if (layer.exchange != ExchangeAlgorithm::direct && layer.method != DispatchMethod::nccl) {
    throw InputError(
        "exchange",
        fmt::format("{} kernels send as they do, not {}", to_string(layer.method), to_string(layer.exchange)),
        "--dispatch nccl, or --exchange direct");
  }
  return CostMaker(calibration, layer, measured).make();
}

}  // namespace moecast
