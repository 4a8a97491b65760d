#include "sim/event/collective_traffic.h"

#include <fmt/format.h>

#include "models/core/error.h"

namespace moecast {
namespace {

bool is_exchange(OperatorKind kind) {
  return kind == OperatorKind::all_to_all_dispatch || kind == OperatorKind::all_to_all_combine;
}

bool is_send(OperatorKind kind) {
  return kind == OperatorKind::point_to_point || kind == OperatorKind::weight_transfer;
}

bool is_ring(OperatorKind kind) {
  return kind == OperatorKind::all_reduce || kind == OperatorKind::all_gather || kind == OperatorKind::reduce_scatter;
}

}  // namespace

RankGroups groups_of(const Operator& op, const Deployment& deployment, int ranks) {
  RankGroups groups{ranks, 1, 1};
  if (is_send(op.kind)) {
    groups.size = ranks > 1 ? 2 : 1;
  } else if (is_exchange(op.kind)) {
    groups.size = deployment.ep;
    groups.stride = expert_tensor_ranks(deployment);
  } else if (is_ring(op.kind) && op.shape.ranks > 0) {
    groups.size = static_cast<int>(op.shape.ranks);
    groups.stride = ranks / groups.size;
  } else if (op.kind == OperatorKind::all_reduce) {
    groups.size = deployment.tp;
  } else if (is_ring(op.kind)) {
    groups.size = deployment.dp;
    groups.stride = deployment.tp;
  }
  if (groups.stride < 1 || ranks % (groups.size * groups.stride) != 0) {
    throw InputError(op.name,
                     fmt::format("joins groups of {} ranks; {} ranks do not divide into them", groups.size, ranks),
                     "tp x dp x replicas are the ranks of a step, experts and their parts lie on tp x dp of them");
  }
  return groups;
}

std::vector<Transfer> collective_transfers(const Operator& op, const RankGroups& groups) {
  std::vector<Transfer> transfers;
  if (groups.size <= 1) return transfers;
  const auto bytes = static_cast<double>(op.shape.bytes);
  const double others = groups.size - 1;
  const int block = groups.size * groups.stride;
  for (int rank = 0; rank < groups.ranks; ++rank) {
    // Rank `rank + i * stride`, around within its group.
    const auto peer = [&](int i) {
      const int first = rank / block * block + rank % groups.stride;
      const int own = (rank - first) / groups.stride;
      return first + (own + i) % groups.size * groups.stride;
    };
    if (is_exchange(op.kind)) {
      for (int i = 1; i < groups.size; ++i) transfers.push_back({rank, peer(i), bytes / others});
    } else if (is_send(op.kind)) {
      if (rank % 2 == 0) transfers.push_back({rank, peer(1), bytes});
    } else {
      const double ways = op.kind == OperatorKind::all_reduce ? 2 : 1;
      transfers.push_back({rank, peer(1), ways * bytes * others / groups.size});
    }
  }
  return transfers;
}

}  // namespace moecast
