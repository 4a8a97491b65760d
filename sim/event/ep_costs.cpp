#include "sim/event/ep_costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "models/core/error.h"
#include "sim/cost/kernel/ready_kernel.h"
#include "sim/event/ep_exchange_costs.h"
#include "sim/step/expert_operators.h"
#include "sim/step/linear_layer.h"
#include "sim/step/usual_efficiency.h"

namespace moecast {
namespace {

class CostMaker {
 public:
  CostMaker(std::shared_ptr<const KernelCalibration> calibration, const EpLayer& layer, const Topology& measured)
      : parts_(std::move(calibration), layer, measured) {}

  EpCosts make() {
    add_router();
    add_shared();
    add_exchange_costs(parts_);
    add_experts();
    order_pieces();
    return std::move(parts_.result);
  }

 private:
  /// Seconds of a linear layer; noted as a piece of the stage.
  double add_gemm(std::string_view stage, double n, double k, DType format) {
    const LinearLayer layer =
        find_linear_layer(*parts_.calibration, {parts_.framework, parts_.layer.version, parts_.layer.fp8_inputs},
                          static_cast<std::int64_t>(n), static_cast<std::int64_t>(k), format);
    const double rows =
        std::max(1.0, std::round(parts_.layer.own_rows > 0 ? parts_.layer.own_rows : parts_.layer.tokens_per_rank));
    const double seconds = layer.seconds(rows);
    if (!layer.known) {
      parts_.result.pieces.push_back({std::string(stage), layer.kernel, "", seconds, -kUnknownKernel.spread,
                                      kUnknownKernel.spread, Origin::assumed});
      return seconds;
    }
    KernelRowValues row = layer.row;
    const auto answer = layer.known->at(row.set("m", rows));
    parts_.add_piece(stage, *layer.known, answer, seconds / std::exp(answer.log_seconds), layer.in_bf16);
    return seconds;
  }

  void add_router() {
    const DType format = DType::bf16;
    double& seconds = parts_.result.costs.router_s;
    if (parts_.layer.router_network) {
      double from = input();
      for (const std::int64_t hidden : parts_.layer.router_hidden) {
        seconds += add_gemm("router", static_cast<double>(hidden), from, format);
        from = static_cast<double>(hidden);
      }
      seconds += add_gemm("router", static_cast<double>(parts_.layer.experts), from, format);
      parts_.result.notes.emplace_back("the router is its GEMM in bf16; no table holds the selection of the top k");
    }
    if (!parts_.layer.input) return;
    const auto hidden = static_cast<double>(parts_.layer.hidden);
    const DType own = parts_.layer.shared_dtype;
    seconds += add_gemm("router", hidden, input(), own) + add_gemm("router", input(), hidden, own);
    parts_.result.notes.emplace_back("projections to the experts' width and back are counted with the router");
  }

  /// Width of the layer's tokens.
  [[nodiscard]] double input() const { return static_cast<double>(parts_.layer.input.value_or(parts_.layer.hidden)); }

  void add_shared() {
    if (parts_.layer.shared_width == 0) return;
    const auto width = static_cast<double>(parts_.layer.shared_width);
    const double hidden = input();
    const DType format = parts_.layer.shared_dtype;
    parts_.result.costs.shared_s = add_gemm("shared", (parts_.layer.matrices - 1) * width, hidden, format);
    parts_.result.costs.shared_s += add_gemm("shared", hidden, width, format);
    if (parts_.layer.shared_gate) parts_.result.costs.shared_s += add_gemm("shared", 1, hidden, format);
  }

  /// The kernels that run behind the dispatch where they were measured on this shape, else those of whole layers.
  void add_experts() {
    if (computes_all_rows()) return add_whole_layer();
    std::vector<std::pair<std::string_view, bool>> tries;  // and whether the kernel must be near
    if (parts_.layer.kernel.empty() && parts_.layer.method == DispatchMethod::low_latency) {
      tries.push_back({"wideep_generation_moe", true});
    }
    if (parts_.layer.kernel.empty() && parts_.layer.method == DispatchMethod::normal)
      tries.push_back({"wideep_context_moe", true});
    tries.push_back({"moe", false});
    tries.push_back({"wideep_generation_moe", false});
    tries.push_back({"wideep_context_moe", false});
    const double tokens = std::max(1.0, parts_.layer.tokens_per_rank * parts_.ranks() / parts_.layer.chunks);
    const RankLoad even = uniform_load(tokens);
    for (const auto& [name, must_be_near] : tries) {
      const KernelLayout& layout = *find_kernel_layout(name);
      const bool local = name == "moe";
      const KernelRowValues row = local ? local_row(layout, even) : rank_row(layout, tokens);
      KernelWanted wanted{name, "", parts_.layer.kernel, parts_.framework, "", table_formats(parts_.layer.dtype)};
      if (local) wanted.picked_by = rank_row(layout, tokens);
      const ReadyKernel kernel = parts_.find(wanted, row);
      if (!kernel) continue;
      if (must_be_near && kernel->compiled.sigma() > kNearShape) continue;
      if (const std::string guess = kernel->guess(); !guess.empty()) parts_.result.notes.push_back("experts: " + guess);
      parts_.add_piece("experts", *kernel, kernel->at(row, even), parts_.layer.chunks);
      const double top_k = local ? local_top_k() : 0;
      parts_.result.costs.experts_s = [kernel, row, top_k](const RankLoad& load) {
        KernelRowValues asked = row;
        if (top_k > 0) asked.set("num_tokens", std::max(1.0, load.rows / top_k));
        return kernel->seconds(asked, load);
      };
      if (local && parts_.ranks() > 1) {
        parts_.result.notes.emplace_back(
            "experts: kernels of whole layers, asked for a layer of one rank's experts and the rows that reach it");
      }
      return;
    }
    parts_.missing("experts of " + std::string(to_string(parts_.layer.dtype)));
  }

  /// A rank that gathered the tokens of all, or is alone, computes its experts' share of them: the law of the closed
  /// form, asked with what was drawn.
  [[nodiscard]] bool computes_all_rows() const {
    return parts_.layer.kernel.empty() && (sees_all_rows(parts_.layer.exchange) || parts_.ranks() == 1) &&
           parts_.layer.experts % parts_.topology.ranks() == 0;
  }

  void add_whole_layer() {
    ExpertCall call;
    call.expert.width = parts_.layer.width;
    call.expert.gated = parts_.layer.matrices == 3;
    call.count = parts_.layer.experts;
    call.top_k = static_cast<int>(parts_.layer.top_k);
    call.width = parts_.layer.hidden;
    call.dtype = parts_.layer.dtype;
    call.sigma = parts_.layer.popularity_sigma;
    call.framework = parts_.framework;
    call.version = parts_.layer.version;
    Deployment deployment;
    deployment.ep = parts_.topology.ranks();
    deployment.moe_tp = 1;
    const auto law = whole_layer_experts(call, deployment, *parts_.calibration, parts_.result.notes);
    if (!law) parts_.missing("experts of " + std::string(to_string(parts_.layer.dtype)));
    const double tokens = std::max(1.0, parts_.layer.tokens_per_rank * parts_.ranks() / parts_.layer.chunks);
    const RankLoad even = uniform_load(tokens);
    const auto answer = law->best().at(law->row(tokens), even);
    const std::vector<std::string> formats = table_formats(parts_.layer.dtype);
    parts_.add_piece("experts", law->best(), answer,
                     parts_.layer.chunks * law->seconds(tokens, even.distinct, even) / std::exp(answer.log_seconds),
                     std::ranges::find(formats, law->best().model.key.dtype) == formats.end());
    parts_.result.costs.experts_s = [law = *law, tokens](const RankLoad& load) {
      return law.seconds(tokens, load.distinct, load);
    };
  }

  /// Experts that a token which reaches a rank uses there, at most.
  [[nodiscard]] double local_top_k() const {
    const double local = std::max(1.0, std::round(static_cast<double>(parts_.layer.experts) / parts_.ranks()));
    return std::min(static_cast<double>(parts_.layer.top_k), local);
  }

  /// One rank's experts as a layer of their own: behind a dispatch a kernel sees the rows that arrived, not all.
  [[nodiscard]] KernelRowValues local_row(const KernelLayout& layout, const RankLoad& load) const {
    KernelRowValues row = rank_row(layout, std::max(1.0, load.rows / local_top_k()));
    row.set("topk", local_top_k())
        .set("num_experts", std::max(1.0, std::round(static_cast<double>(parts_.layer.experts) / parts_.ranks())))
        .set("moe_ep_size", 1);
    return row;
  }

  /// One of many ranks, as tables have it that were measured behind a dispatch. @param tokens  of all ranks.
  [[nodiscard]] KernelRowValues rank_row(const KernelLayout& layout, double tokens) const {
    KernelRowValues row(layout);
    row.set("num_tokens", tokens)
        .set("hidden_size", static_cast<double>(parts_.layer.hidden))
        .set("inter_size", static_cast<double>(parts_.layer.width))
        .set("topk", static_cast<double>(parts_.layer.top_k))
        .set("num_experts", static_cast<double>(parts_.layer.experts))
        .set("moe_tp_size", 1)
        .set("moe_ep_size", parts_.ranks())
        .set(kDistributionColumn, std::min(1.2, std::log1p(parts_.layer.load_variation) / std::log(2.8)))
        .set(kMatricesColumn, parts_.layer.matrices);
    return row;
  }

  [[nodiscard]] RankLoad uniform_load(double tokens) const {
    const double rows = tokens * static_cast<double>(parts_.layer.top_k) / parts_.ranks();
    const double local = static_cast<double>(parts_.layer.experts) / parts_.ranks();
    const double mean = rows / local;
    return {rows, local * (1 - std::exp(-mean)), mean + std::sqrt(2 * mean * std::log(std::max(2.0, local)))};
  }

  void order_pieces() {
    constexpr std::array<std::string_view, 5> kOrder{"router", "shared", "dispatch", "experts", "combine"};
    std::ranges::stable_sort(parts_.result.pieces, {}, [&](const EpPiece& piece) {
      return std::ranges::find(kOrder, piece.stage) - kOrder.begin();
    });
  }

  EpCostParts parts_;
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
