#pragma once
#include <vector>

#include "models/plan/deployment.h"
#include "models/plan/operator.h"
#include "sim/event/event_graph.h"

namespace moecast {

/// Groups of ranks that carry out the same collective at the same time: rank r is of the group of all ranks that differ
/// from it by a multiple of `stride` within a block of `size` x `stride` ranks.
///
/// Ranks count tensor-parallel ones first, then data-parallel ones, then replicas of the deployment: tensor-parallel
/// groups are neighbours, experts' groups lie `moe_tp` apart, gradients are reduced over what is furthest apart.
struct RankGroups {
  int ranks = 1;  ///< of all groups
  int size = 1;   ///< of one
  int stride = 1;
};

/// @param ranks  that execute the graph: tp x dp x replicas. @return size 1 of an operator that is no collective.
/// @throws InputError where a group does not divide the ranks.
RankGroups groups_of(const Operator& op, const Deployment& deployment, int ranks);

/// What one execution sends from rank to rank in all groups: around the ring of each group (all-reduce, all-gather,
/// reduce-scatter), to all others alike (dispatch, combine), or to the next rank (point to point, weights).
std::vector<Transfer> collective_transfers(const Operator& op, const RankGroups& groups);

}  // namespace moecast
