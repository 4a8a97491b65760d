#include "sim/event/collective_traffic.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <utility>

#include "models/core/error.h"

namespace moecast {
namespace {

Operator collective(OperatorKind kind, std::int64_t ranks = 0) {
  Operator op;
  op.kind = kind;
  op.name = "collective";
  op.shape.bytes = 1200;
  op.shape.ranks = ranks;
  return op;
}

Deployment of(int tp, int dp, int ep) {
  Deployment d;
  d.tp = tp;
  d.dp = dp;
  d.ep = ep;
  return d;
}

std::pair<int, int> shape(const RankGroups& groups) { return {groups.size, groups.stride}; }

TEST(CollectiveTraffic, WhoJoinsWhom) {
  using Pair = std::pair<int, int>;
  // Two tensor-parallel ranks x four data-parallel ones, three replicas of these.
  const Deployment d = of(2, 4, 4);
  EXPECT_EQ(shape(groups_of(collective(OperatorKind::all_reduce), d, 24)), (Pair{2, 1}));
  EXPECT_EQ(shape(groups_of(collective(OperatorKind::all_gather), d, 24)), (Pair{4, 2}));
  EXPECT_EQ(shape(groups_of(collective(OperatorKind::all_to_all_combine), d, 24)), (Pair{4, 2}))
      << "two ranks share an expert";
  EXPECT_EQ(shape(groups_of(collective(OperatorKind::all_reduce, 12), d, 24)), (Pair{12, 2}))
      << "gradients of attention: data-parallel ranks of all replicas";
  EXPECT_EQ(shape(groups_of(collective(OperatorKind::reduce_scatter, 3), d, 24)), (Pair{3, 8}))
      << "gradients of experts: replicas";
  EXPECT_EQ(groups_of(collective(OperatorKind::gemm), d, 24).size, 1);
  EXPECT_THROW(groups_of(collective(OperatorKind::all_reduce, 7), d, 24), InputError);
  EXPECT_THROW(groups_of(collective(OperatorKind::all_to_all_dispatch), of(1, 4, 8), 4), InputError);
}

TEST(CollectiveTraffic, EveryRankSendsAndReceivesWhatItsCollectiveMoves) {
  const std::map<OperatorKind, double> sent{{OperatorKind::all_reduce, 2 * 1200 * 3.0 / 4},
                                            {OperatorKind::all_gather, 1200 * 3.0 / 4},
                                            {OperatorKind::reduce_scatter, 1200 * 3.0 / 4},
                                            {OperatorKind::all_to_all_dispatch, 1200},
                                            {OperatorKind::all_to_all_combine, 1200}};
  for (const auto& [kind, bytes] : sent) {
    for (const int stride : {1, 3}) {
      std::map<int, double> out, in;
      for (const Transfer& t : collective_transfers(collective(kind), {24, 4, stride})) {
        EXPECT_NE(t.from, t.to);
        const int block = 4 * stride;
        EXPECT_EQ(t.from / block, t.to / block) << "within the group";
        EXPECT_EQ(t.from % stride, t.to % stride);
        out[t.from] += t.bytes;
        in[t.to] += t.bytes;
      }
      ASSERT_EQ(out.size(), 24U);
      for (int rank = 0; rank < 24; ++rank) {
        EXPECT_DOUBLE_EQ(out[rank], bytes) << to_string(kind);
        EXPECT_DOUBLE_EQ(in[rank], bytes) << to_string(kind);
      }
    }
  }
  EXPECT_EQ(collective_transfers(collective(OperatorKind::point_to_point), {2, 2, 1}),
            (std::vector<Transfer>{{0, 1, 1200}}));
  EXPECT_TRUE(collective_transfers(collective(OperatorKind::all_reduce), {8, 1, 1}).empty());
}

}  // namespace
}  // namespace moecast
