#include "sim/event/ep_exchange_costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "sim/cost/kernel/expert_traffic.h"
#include "sim/cost/kernel/unfitted_law.h"
#include "sim/step/collective_cost.h"
#include "sim/step/kernel_doubt.h"

namespace moecast {
namespace {

class ExchangeMaker {
 public:
  explicit ExchangeMaker(EpCostParts& parts) : parts_(parts) {}

  void add() {
    switch (parts_.layer.method) {
      case DispatchMethod::low_latency: return add_low_latency();
      case DispatchMethod::normal: return add_normal();
      case DispatchMethod::one_sided: return add_one_sided();
      case DispatchMethod::nccl: return add_nccl();
    }
  }

 private:
  /// DeepEP knows nodes of eight devices.
  double deepep_nodes() {
    const int per_node = parts_.topology.ranks_per_node();
    if (parts_.topology.nodes() > 1 && per_node != static_cast<int>(kDevicesPerNode)) {
      throw InputError("cluster", fmt::format("has {} devices a node; DeepEP was measured on nodes of 8", per_node),
                       "--dispatch nccl or nvlink-one-sided, or a cluster of nodes of 8");
    }
    if (parts_.topology.nodes() == 1 && parts_.ranks() > kDevicesPerNode) {
      throw InputError(
          "cluster",
          fmt::format("joins {} ranks by one scale-up link; DeepEP was measured on nodes of 8", parts_.ranks()),
          "--dispatch nvlink-one-sided or nccl");
    }
    if (parts_.topology.nodes() == 1 && parts_.ranks() < kDevicesPerNode) {
      parts_.result.notes.push_back(
          fmt::format("DeepEP was measured on 8 ranks a node; its bytes are scaled to {}", parts_.ranks()));
    } else if (std::fmod(parts_.ranks(), kDevicesPerNode) != 0) {
      parts_.result.notes.emplace_back("the last node is not full: laws are those of full nodes");
    }
    return parts_.topology.nodes();
  }

  /// Bytes that leave a rank, over those of full nodes of eight.
  [[nodiscard]] double fewer_ranks() const {
    const double full = kDevicesPerNode * parts_.topology.nodes();
    return parts_.ranks() >= full ? 1 : (parts_.ranks() - 1) / parts_.ranks() / ((full - 1) / full);
  }

  /// Of the rank that sends most, which all wait for.
  [[nodiscard]] double sent_rows() const { return std::max(parts_.layer.tokens_per_rank, parts_.layer.sent_rows); }

  KernelRowValues deepep_row(const KernelLayout& layout, double nodes) const {
    KernelRowValues row(layout);
    row.set("num_token", std::max(1.0, sent_rows()))
        .set("hidden_size", static_cast<double>(parts_.layer.hidden))
        .set("num_topk", static_cast<double>(parts_.layer.top_k))
        .set("num_experts", static_cast<double>(parts_.layer.experts))
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
      const ReadyKernel kernel = parts_.find({layout, exchange_part(i), "", parts_.framework, "", {}}, even);
      if (!kernel) parts_.missing(kStages[i]);
      const auto answer = kernel->at(even);
      const double measured = std::min(kernel->seconds(scaled(1 / std::max(1.0, parts_.layer.tokens_per_rank), i == 1)),
                                       std::exp(answer.log_seconds));
      extra[i] += later_start(extra[i] + measured);
      const double start = extra[i] + measured;
      parts_.add_piece(kStages[i], *kernel, answer, 1 + extra[i] / std::exp(answer.log_seconds));
      auto cost = [kernel, scaled, back = i == 1, more = extra[i]](double imbalance) {
        return more + kernel->seconds(scaled(imbalance, back));
      };
      (i == 0 ? parts_.result.costs.dispatch_start_s : parts_.result.costs.combine_start_s) = start;
      (i == 0 ? parts_.result.costs.dispatch_s : parts_.result.costs.combine_s) = std::move(cost);
    }
  }

  /// Seconds by which the cluster's file has a message start later than where the law was measured.
  double later_start(double start_s) {
    if (parts_.ranks() <= 1) return 0;
    const auto known = parts_.topology.message_latency(parts_.topology.nodes() > 1);
    if (!known || *known <= start_s) return 0;
    const std::string text = fmt::format("an exchange starts after {}, as the cluster's file says of a message",
                                         format_seconds(Seconds(*known)));
    if (std::ranges::find(parts_.result.notes, text) == parts_.result.notes.end()) parts_.result.notes.push_back(text);
    return *known - start_s;
  }

  [[nodiscard]] std::string_view exchange_part(std::size_t i) const {
    if (parts_.layer.exchange == ExchangeAlgorithm::all_gather) return i == 0 ? "all_gather" : "reduce_scatter";
    if (parts_.layer.method == DispatchMethod::nccl) return "alltoall";
    return i == 0 ? "dispatch" : "combine";
  }

  void add_low_latency() {
    const KernelLayout& layout = *find_kernel_layout("wideep_deepep_ll");
    const double nodes = deepep_nodes();
    const KernelRowValues base = deepep_row(layout, nodes);
    const double rows = sent_rows() * static_cast<double>(parts_.layer.top_k) * fewer_ranks();
    add_exchange(layout.name, [base, rows](double imbalance, bool /*back*/) {
      KernelRowValues row = base;
      return row.set(kSentRowsColumn, rows * imbalance);
    });
    parts_.result.traffic.deduplication = Deduplication::per_expert;
    parts_.result.traffic.dispatch_row_bytes = dispatch_row_bytes(static_cast<double>(parts_.layer.hidden));
  }

  /// Seconds in which two nodes and more exchange how many tokens will come: of this machine where it was measured,
  /// else what the law expects anywhere.
  double notify_s(const KernelLayout& layout, std::string_view part, const KernelRowValues& row) {
    if (parts_.topology.nodes() < 2) return 0;
    if (const ReadyKernel known = parts_.find({layout.name, part, "", parts_.framework, "", {}}, row))
      return known->seconds(row);
    const double seconds = unfitted_seconds({parts_.framework, "", std::string(layout.name), std::string(part), ""},
                                            parts_.device, row.span());
    parts_.result.notes.push_back(
        fmt::format("{}: {:.0f} us assumed, nothing measured on this machine", part, 1e6 * seconds));
    return seconds;
  }

  void add_normal() {
    const KernelLayout& layout = *find_kernel_layout("wideep_deepep_normal");
    const double nodes = deepep_nodes();
    KernelRowValues base = deepep_row(layout, nodes);
    base.set("dispatch_sms", kDispatchMultiprocessors);
    const double tokens = sent_rows() * fewer_ranks();
    const std::array<double, 2> notify{notify_s(layout, "dispatch_notify", base),
                                       notify_s(layout, "combine_notify", base)};
    add_exchange(
        layout.name,
        [base, tokens](double imbalance, bool /*back*/) {
          KernelRowValues row = base;
          return row.set("num_token", std::max(tokens * imbalance, 1.0));
        },
        notify);
    parts_.result.notes.push_back(fmt::format("DeepEP uses {:.0f} multiprocessors", kDispatchMultiprocessors));
    parts_.result.traffic.deduplication =
        parts_.topology.nodes() > 1 ? Deduplication::per_node : Deduplication::per_rank;
    parts_.result.traffic.ranks_per_node = parts_.topology.ranks_per_node();
    parts_.result.traffic.dispatch_row_bytes = dispatch_row_bytes(static_cast<double>(parts_.layer.hidden));
  }

  void add_one_sided() {
    if (parts_.topology.nodes() > 1) {
      throw InputError("cluster", "spans several nodes; one-sided writes stay inside one NVLink domain",
                       "--dispatch deepep-normal or nccl");
    }
    const KernelLayout& layout = *find_kernel_layout("nvlink_one_sided");
    const auto hidden = static_cast<double>(parts_.layer.hidden);
    const double element = parts_.layer.dtype == DType::nvfp4                                       ? 0.5625
                           : parts_.layer.dtype == DType::bf16 || parts_.layer.dtype == DType::fp16 ? 2
                                                                                                    : 1.03125;
    const double copies = distinct_groups(parts_.ranks(), static_cast<double>(parts_.layer.experts),
                                          static_cast<double>(parts_.layer.top_k));
    KernelRowValues base(layout);
    base.set("tokens_per_rank", sent_rows())
        .set("hidden", hidden)
        .set("topk", static_cast<double>(parts_.layer.top_k))
        .set("num_experts", static_cast<double>(parts_.layer.experts))
        .set("ep_size", parts_.ranks());
    // The way back is not quantised.
    add_exchange(layout.name, [base, copies, element](double imbalance, bool back) {
      KernelRowValues row = base;
      return row.set("element_bytes", back ? 2 : element).set(kCopiesColumn, std::max(copies * imbalance, 1e-3));
    });
    parts_.result.traffic.deduplication = Deduplication::per_rank;
    parts_.result.traffic.dispatch_row_bytes = hidden * element;
  }

  /// The sum of what the experts of all ranks made of rows that every rank has.
  void add_all_reduce() {
    const double elements = parts_.layer.tokens_per_rank * parts_.ranks() * static_cast<double>(parts_.layer.hidden);
    const int count = parts_.topology.ranks();
    const CollectiveCost reduce =
        parts_.topology.nodes() == 1
            ? engine_all_reduce_cost(*parts_.calibration, parts_.framework, parts_.layer.version, count)
            : collective_cost(*parts_.calibration, "all_reduce", count, parts_.topology.nodes());
    parts_.result.costs.dispatch_s = [](double) { return 0.0; };
    add_collectives("combine", {{reduce, elements}}, parts_.result.costs.combine_s,
                    parts_.result.costs.combine_start_s);
    parts_.result.traffic.dispatch_row_bytes = static_cast<double>(parts_.layer.hidden) * kActivationBytes;
  }

  struct SizedCollective {
    CollectiveCost cost;
    double elements = 0;
  };

  /// Collectives of the closed form: over replicas of attention, and inside each.
  void add_gather_reduce() {
    const int tp = parts_.layer.tensor_ranks;
    const int replicas = parts_.topology.ranks() / tp;
    if (replicas == 1) return add_all_reduce();
    const auto hidden = static_cast<double>(parts_.layer.hidden);
    const double all = parts_.layer.tokens_per_rank * parts_.ranks() * hidden;
    const int nodes = std::min(replicas, parts_.topology.nodes());
    const KernelCalibration& calibration = *parts_.calibration;
    std::vector<SizedCollective> back{{collective_cost(calibration, "reduce_scatter", replicas, nodes), all}};
    if (tp > 1) {
      const int inside = (tp + parts_.topology.ranks_per_node() - 1) / parts_.topology.ranks_per_node();
      back.push_back({inside == 1 ? engine_all_reduce_cost(calibration, parts_.framework, parts_.layer.version, tp)
                                  : collective_cost(calibration, "all_reduce", tp, inside),
                      all / replicas});
    }
    add_collectives("dispatch", {{collective_cost(calibration, "all_gather", replicas, nodes), all}},
                    parts_.result.costs.dispatch_s, parts_.result.costs.dispatch_start_s);
    add_collectives("combine", back, parts_.result.costs.combine_s, parts_.result.costs.combine_start_s);
    parts_.result.traffic.dispatch_row_bytes = hidden * kActivationBytes;
  }

  /// One after another, as one piece.
  void add_collectives(const std::string& stage, const std::vector<SizedCollective>& collectives,
                       std::function<double(double)>& seconds, double& start_s) {
    const auto scaled = [collectives](double scale) {
      double sum = 0;
      for (const SizedCollective& one : collectives) sum += one.cost.seconds(std::max(1.0, one.elements * scale));
      return sum;
    };
    start_s = std::min(scaled(1 / std::max(1.0, parts_.layer.tokens_per_rank)), scaled(1));
    EpPiece piece{stage, "", "", scaled(1)};
    piece.origin = Origin::measured;
    for (const SizedCollective& one : collectives) {
      if (!piece.kernel.empty()) piece.kernel += ", ";
      piece.kernel += one.cost.kernel;
      if (!one.cost.answer) {
        piece.origin = Origin::assumed;
        continue;
      }
      const auto answer = one.cost.answer(one.elements);
      const double share = std::exp(answer.log_seconds) / piece.seconds;
      piece.log_low += share * (answer.log_low - answer.log_seconds);
      piece.log_high += share * (answer.log_high - answer.log_seconds);
      piece.origin = weakest(piece.origin, answer.origin);
    }
    parts_.result.pieces.push_back(std::move(piece));
    seconds = scaled;
  }

  void add_nccl() {
    if (parts_.layer.exchange == ExchangeAlgorithm::all_reduce && parts_.ranks() > 1) return add_all_reduce();
    if (parts_.layer.exchange == ExchangeAlgorithm::gather_reduce && parts_.ranks() > 1) return add_gather_reduce();
    const KernelLayout& layout = *find_kernel_layout("nccl");
    const auto hidden = static_cast<double>(parts_.layer.hidden);
    constexpr double kElement = 2;
    const double copies = distinct_groups(parts_.ranks(), static_cast<double>(parts_.layer.experts),
                                          static_cast<double>(parts_.layer.top_k));
    const bool gathered = parts_.layer.exchange == ExchangeAlgorithm::all_gather;
    const double elements = (gathered ? parts_.layer.tokens_per_rank * parts_.ranks() : sent_rows() * copies) * hidden;
    KernelRowValues base(layout);
    base.set("num_gpus", parts_.ranks())
        .set("element_bytes", kElement)
        .set("node_num", parts_.topology.nodes())
        .set("eager", 0);
    if (parts_.ranks() > 1) {
      const std::string framework = parts_.framework;
      parts_.framework = "nccl";
      add_exchange(layout.name, [base, elements](double imbalance, bool /*back*/) {
        KernelRowValues row = base;
        return row.set("message_size", std::max(1.0, elements * imbalance));
      });
      parts_.framework = framework;
      parts_.result.notes.emplace_back(
          gathered ? "NCCL's all-gather of all tokens in bf16, and its reduce-scatter; graph replay"
                   : "NCCL's all-to-all of rows in bf16, a copy a rank; graph replay");
    } else {
      parts_.result.costs.dispatch_s = parts_.result.costs.combine_s = [](double) { return 0.0; };
    }
    const bool by_node = parts_.layer.exchange == ExchangeAlgorithm::hierarchical && parts_.topology.nodes() > 1;
    parts_.result.traffic.deduplication = by_node ? Deduplication::per_node : Deduplication::per_rank;
    parts_.result.traffic.ranks_per_node = parts_.topology.ranks_per_node();
    parts_.result.traffic.dispatch_row_bytes = hidden * kElement;
  }

  EpCostParts& parts_;
};

}  // namespace

EpCostParts::EpCostParts(std::shared_ptr<const KernelCalibration> kernels, const EpLayer& asked,
                         const Topology& measured)
    : calibration(std::move(kernels)), layer(asked), topology(measured), device(calibration->device) {
  if (topology.port_bandwidth() > 0) device.link = topology.port_bandwidth();
  if (topology.nic_bandwidth() > 0) device.nic = topology.nic_bandwidth();
  framework = layer.framework.empty() ? std::string(framework_of(layer.method)) : layer.framework;
}

ReadyKernel EpCostParts::find(const KernelWanted& wanted, const KernelRowValues& row) const {
  const auto ready = find_ready_kernel(*calibration, wanted, row);
  if (ready) move_to_links(*ready, calibration->device, device, topology.nodes() > 1, row);
  return ready;
}

void EpCostParts::missing(std::string_view what) const {
  throw InputError(calibration->profile,
                   fmt::format("holds no kernel for {} ({}, {})", what, to_string(layer.method), framework),
                   "moecast explain --hw NAME lists what it holds; --dtype, --dispatch and --backend choose others");
}

void EpCostParts::add_piece(std::string_view stage, const ReadyKernelData& kernel, const CompiledKernel::Answer& answer,
                            double factor, bool stands_in) {
  const double doubt = stands_in ? kOtherFormat : 0;
  result.pieces.push_back({std::string(stage), kernel.model.key.text(), kernel.substitution,
                           std::exp(answer.log_seconds) * factor, answer.log_low - answer.log_seconds - doubt,
                           answer.log_high - answer.log_seconds + doubt,
                           stands_in ? weakest(answer.origin, Origin::extrapolated) : answer.origin});
}

void add_exchange_costs(EpCostParts& parts) { ExchangeMaker(parts).add(); }

}  // namespace moecast
