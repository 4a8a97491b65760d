#include "sim/event/graph_links.h"

#include <algorithm>

#include "sim/event/collective_traffic.h"
#include "sim/event/engine.h"

namespace moecast {

TaskKind task_kind(OperatorKind kind) {
  switch (kind) {
    case OperatorKind::all_to_all_dispatch: return TaskKind::dispatch;
    case OperatorKind::all_to_all_combine: return TaskKind::combine;
    case OperatorKind::all_reduce:
    case OperatorKind::all_gather:
    case OperatorKind::reduce_scatter: return TaskKind::collective;
    case OperatorKind::point_to_point:
    case OperatorKind::weight_transfer: return TaskKind::transfer;
    case OperatorKind::host: return TaskKind::launch;
    default: return TaskKind::kernel;
  }
}

GraphLinks::GraphLinks(EventGraph& events, const GraphNetwork& network)
    : network_(network), ports_(events, network.topology), ranks_(network.topology.ranks()) {
  ports_.leave_to_others(events, network.background_share);
}

GraphLinks::Flow GraphLinks::flow(const Operator& op, double latency_s, const RankRange& ranks) {
  const RankGroups groups = groups_of(op, network_.deployment, ranks.count);
  std::vector<Transfer> transfers = collective_transfers(op, groups);
  if (transfers.empty()) return {latency_s, {}};
  for (Transfer& one : transfers) {
    one.from += ranks.first;
    one.to += ranks.first;
  }
  const double start = network_.start_s ? std::min(latency_s, network_.start_s(op) * op.count) : 0;
  return stretched(transfers, latency_s, start,
                   fullest_together(collective_transfers(op, {groups.size, groups.size, 1}), groups.size));
}

GraphLinks::Flow GraphLinks::send(double bytes, double latency_s, double start_s, const RankRange& from,
                                  const RankRange& to) {
  std::vector<Transfer> transfers;
  for (int i = 0; i < from.count; ++i) transfers.push_back({from.first + i, to.first + i, bytes});
  const Transfer one{0, 1, bytes};
  return stretched(transfers, latency_s, std::min(latency_s, start_s), fullest_together({&one, 1}, 2));
}

GraphLinks::Flow GraphLinks::stretched(std::span<const Transfer> transfers, double latency_s, double start_s,
                                       double together_s) {
  // A collective of no bytes has no fullest link.
  if (!(together_s > 0)) return {latency_s, {}};
  const std::span<const Demand> demands = ports_.demands(transfers);
  ports_.rescale((latency_s - start_s) / together_s);
  return {start_s, demands};
}

double GraphLinks::fullest_together(std::span<const Transfer> transfers, int ranks) {
  auto known = together_.find(ranks);
  if (known == together_.end()) {
    known = together_.emplace(ranks, std::make_unique<Together>(network_.measured(ranks))).first;
  }
  known->second->ports.demands(transfers);
  return known->second->ports.fullest_s();
}

}  // namespace moecast
