#include "sim/cost/kernel/published_law.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string_view>

#include "sim/cost/kernel/expert_traffic.h"
#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

/// Rows that no column says: the models that these libraries were written for.
constexpr double kPublishedExperts = 256;
constexpr double kPublishedTopK = 8;
/// Kernels of low latency are published for decoding, others for prompts.
constexpr double kMostDecodeTokens = 128;

/// Prior of each kind's start, of a NIC, and of NVLink where its rate is not said.
constexpr std::array<double, 3> kPriorStart{25e-6, 80e-6, 100e-6};
constexpr double kPriorNic = 45e9;
constexpr double kPriorNvlink = 300e9;
constexpr double kPriorNvlinkBlackwell = 600e9;
/// Share of a stated rate that rows reach.
constexpr double kReachedLink = 0.84;
/// Spreads of the priors in log, and how much they weigh beside one row.
constexpr std::array<double, 3> kPublishedSpread{0.7, 0.3, 0.3};
constexpr double kSpreadOfGrowth = 0.1;
constexpr double kSpreadOfGrowthOverEfa = 0.4;
constexpr double kPublishedPriorWeight = 0.3;
constexpr double kPublishedSoftScale = 0.05;
/// How sharply the slower of NIC and NVLink hides the faster.
constexpr double kHiding = 3;

double reduced_law(const std::array<double, 4>& log, const PublishedPoint& point) {
  const double nic = point.nic_bytes / std::exp(log[1]) * std::pow(std::max(point.nodes, 2.0) / 2, log[3]);
  const double nvlink = point.nvlink_bytes / std::exp(log[2]);
  return std::exp(log[0]) + std::pow(std::pow(nic, kHiding) + std::pow(nvlink, kHiding), 1 / kHiding);
}

bool mentions(std::string_view text, std::string_view word) { return text.find(word) != std::string_view::npos; }

std::array<double, 4> constants_of(const Eigen::VectorXd& x) { return {x[0], x[1], x[2], x[3]}; }

}  // namespace

std::string_view to_string(PublishedKind kind) {
  switch (kind) {
    case PublishedKind::low_latency: return "low latency";
    case PublishedKind::normal: return "normal";
    case PublishedKind::all_to_all: return "all-to-all";
  }
  return "normal";
}

std::optional<PublishedPoint> published_point(const PublishedExchange& row) {
  PublishedPoint point;
  const double nodes = row.nodes;
  const double across = (nodes - 1) / nodes;
  // Of what a rank sends inside its node, an eighth stays where it is.
  const double inside = (kDevicesPerNode - 1) / kDevicesPerNode;
  const double ranks = kDevicesPerNode * nodes;
  point.nodes = nodes;
  point.ranks = row.ranks;
  point.combine = row.operation == "combine";
  point.efa = mentions(row.fabric, "EFA");
  point.nvlink = row.nvlink                  ? kReachedLink * *row.nvlink
                 : mentions(row.gpu, "B200") ? kPriorNvlinkBlackwell
                                             : kPriorNvlink;
  double logical = 0;
  if (row.operation == "alltoall") {
    if (!row.bytes) return std::nullopt;
    point.kind = PublishedKind::all_to_all;
    point.nic_bytes = *row.bytes * across;
    point.nvlink_bytes = *row.bytes / nodes * inside;
    // What nccl-tests call a bandwidth is a time already where it is of use.
    if (!row.seconds) return std::nullopt;
  } else {
    if (!row.tokens || !row.hidden) return std::nullopt;
    const double tokens = *row.tokens;
    const double top_k = row.top_k.value_or(kPublishedTopK);
    const double experts = row.experts.value_or(kPublishedExperts);
    const double bytes = row.fp8 ? dispatch_row_bytes(*row.hidden) : combine_row_bytes(*row.hidden);
    const double to_ranks = tokens * distinct_groups(ranks, experts, top_k) * bytes;
    const double to_nodes = tokens * (nodes > 1 ? distinct_groups(nodes, experts, top_k) : 1) * bytes;
    const double copies = tokens * top_k * bytes;
    const bool low = tokens <= kMostDecodeTokens;
    const bool pure_rdma = mentions(row.mode, "pure RDMA");
    point.kind = low ? PublishedKind::low_latency : PublishedKind::normal;
    logical = low ? copies : nodes > 1 ? to_nodes : to_ranks;
    const double sent = low ? copies : to_nodes;
    point.nic_bytes = sent * (pure_rdma ? (ranks - 1) / ranks : across);
    if (!pure_rdma) point.nvlink_bytes = low ? copies / nodes * inside : to_ranks * inside;
  }
  point.seconds = row.seconds ? *row.seconds : logical / *row.bandwidth;
  return point;
}

PublishedLaw PublishedLaw::fit(std::span<const PublishedPoint> points) {
  if (points.empty()) throw std::logic_error("a law of no rows");
  const PublishedPoint& any = points.front();
  Eigen::VectorXd prior(4), spread(4);
  prior << std::log(kPriorStart[static_cast<std::size_t>(any.kind)]), std::log(kPriorNic), std::log(any.nvlink), 0;
  spread << kPublishedSpread[0], kPublishedSpread[1], kPublishedSpread[2],
      any.efa ? kSpreadOfGrowthOverEfa : kSpreadOfGrowth;
  LeastSquaresProblem problem;
  // Priors are as easily outvoted as rows: they go through the same loss.
  problem.residuals = [&](const Eigen::VectorXd& x) {
    const auto count = static_cast<Eigen::Index>(points.size());
    Eigen::VectorXd residuals(count + prior.size());
    for (Eigen::Index i = 0; i < count; ++i) {
      const PublishedPoint& point = points[static_cast<std::size_t>(i)];
      residuals[i] = std::log(reduced_law(constants_of(x), point) / point.seconds);
    }
    residuals.tail(prior.size()) = kPublishedPriorWeight * (x - prior).cwiseQuotient(spread);
    return residuals;
  };
  problem.soft_scale = kPublishedSoftScale;
  PublishedLaw law;
  law.log_ = constants_of(fit_least_squares(problem, prior));
  return law;
}

double PublishedLaw::seconds(const PublishedPoint& point) const { return reduced_law(log_, point); }
double PublishedLaw::start_s() const { return std::exp(log_[0]); }
double PublishedLaw::nic() const { return std::exp(log_[1]); }
double PublishedLaw::nvlink() const { return std::exp(log_[2]); }

}  // namespace moecast
