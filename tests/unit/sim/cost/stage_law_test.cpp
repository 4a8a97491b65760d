#include "sim/cost/stage_law.h"

#include <gtest/gtest.h>

#include <vector>

namespace moecast {
namespace {

KernelPoint decode(std::int64_t kv_heads, std::int64_t group, std::int64_t context, double footprint) {
  KernelPoint point;
  point.kind = OperatorKind::attention_decode;
  point.backend = "native";
  point.shape.batch = 4;
  point.shape.query = 1;
  point.shape.context = context;
  point.shape.kv_heads = kv_heads;
  point.shape.heads = kv_heads * group;
  point.shape.head_dim = 64;
  point.footprint = Bytes(footprint);
  return point;
}

/// 20 ns a key and head, 30 ns more a row of a key or a value that lies among others in memory.
double made_up_seconds(const KernelPoint& point) {
  const auto keys = static_cast<double>(point.shape.batch * point.shape.context);
  const bool apart = point.shape.kv_heads > 1 && point.footprint.value() > 64e6;
  return 20e-9 * keys * static_cast<double>(point.shape.heads) +
         (apart ? 2 * 30e-9 * keys * static_cast<double>(point.shape.kv_heads) : 0.0);
}

TEST(StageLaw, RowsOfAHeadThatLieApartInMemoryWaitEach) {
  std::vector<Measurement> points;
  for (const double footprint : {1e6, 300e6}) {
    for (const std::int64_t kv_heads : {1, 2, 8}) {
      for (const std::int64_t group : {1, 4}) {
        for (const std::int64_t context : {100, 1000}) {
          Measurement row;
          row.point = decode(kv_heads, group, context, footprint);
          row.latency = Seconds(made_up_seconds(row.point));
          points.push_back(row);
        }
      }
    }
  }
  const StageLaw law = StageLaw::fit(points);
  const auto names = StageLaw::term_names(OperatorKind::attention_decode);
  ASSERT_EQ(names[4], "s_per_piece_from_memory");
  EXPECT_NEAR(law.coefficients()(4) + 64 * 4 * law.coefficients()(5), 30e-9, 2e-9);
  // Of another group, context and number of heads.
  const KernelPoint alone = decode(1, 6, 500, 400e6);
  const KernelPoint many = decode(6, 1, 500, 400e6);
  EXPECT_NEAR(law.seconds(alone).value() / made_up_seconds(alone), 1, 0.05);
  EXPECT_NEAR(law.seconds(many).value() / made_up_seconds(many), 1, 0.05);
  EXPECT_NEAR(law.memory_seconds(many).value() / (2 * 30e-9 * 2000 * 6), 1, 0.1);
  EXPECT_LT(law.memory_seconds(alone).value(), 0.1 * law.seconds(alone).value());
}

TEST(StageLaw, NothingLiesApartInCaches) {
  StageLaw law(
      OperatorKind::attention_decode,
      Eigen::VectorXd::Unit(static_cast<Eigen::Index>(StageLaw::term_names(OperatorKind::attention_decode).size()), 4));
  EXPECT_EQ(law.seconds(decode(8, 1, 100, 1e6)).value(), 0);
  EXPECT_EQ(law.seconds(decode(1, 8, 100, 1e9)).value(), 0);
  EXPECT_NEAR(law.seconds(decode(8, 1, 100, 1e9)).value(), 2 * 4 * 100 * 8, 1e-6);
}

}  // namespace
}  // namespace moecast
