// The reduced law of published exchanges, on rows that are made up.
#include "sim/cost/kernel/published_law.h"

#include <gtest/gtest.h>

#include <cmath>

namespace moecast {
namespace {

PublishedExchange row(double nodes, const char* operation = "dispatch", double tokens = 128) {
  PublishedExchange one;
  one.operation = operation;
  one.library = "Made Up";
  one.gpu = "H100";
  one.nodes = nodes;
  one.ranks = 8 * nodes;
  one.tokens = tokens;
  one.hidden = 7168;
  one.top_k = 8;
  one.experts = 256;
  one.fp8 = one.operation == "dispatch";
  one.seconds = 1e-4;
  return one;
}

TEST(PublishedPoint, SendsACopyASelectedExpertInLowLatency) {
  // 128 tokens x 8 copies x (7168 + 224 B) = 7 569 408 B: half across two nodes, 7/16 over NVLink to others inside.
  const auto point = published_point(row(2));
  ASSERT_TRUE(point);
  EXPECT_EQ(point->kind, PublishedKind::low_latency);
  EXPECT_NEAR(point->nic_bytes, 7569408.0 / 2, 1);
  EXPECT_NEAR(point->nvlink_bytes, 7569408.0 * 7 / 16, 1);
  PublishedExchange pure = row(2);
  pure.mode = "low-latency pure RDMA";
  EXPECT_NEAR(published_point(pure)->nic_bytes, 7569408.0 * 15 / 16, 1);
  EXPECT_EQ(published_point(pure)->nvlink_bytes, 0);
}

TEST(PublishedPoint, TurnsABandwidthOfLogicalBytesIntoSeconds) {
  PublishedExchange one = row(1);
  one.seconds.reset();
  one.bandwidth = 98e9;
  EXPECT_NEAR(published_point(one)->seconds, 7569408 / 98e9, 1e-9);
  one.hidden.reset();
  EXPECT_FALSE(published_point(one)) << "nothing says the bytes";
}

TEST(PublishedLaw, FindsTheConstantsThatRowsWereMadeOf) {
  std::vector<PublishedPoint> points;
  for (const double nodes : {1.0, 2.0, 4.0, 8.0}) {
    for (const char* operation : {"dispatch", "combine"}) {
      PublishedPoint point = *published_point(row(nodes, operation));
      const double nic = point.nic_bytes / 46e9;
      const double nvlink = point.nvlink_bytes / 250e9;
      point.seconds = 30e-6 + std::cbrt(nic * nic * nic + nvlink * nvlink * nvlink);
      points.push_back(point);
    }
  }
  const PublishedLaw law = PublishedLaw::fit(points);
  // Priors of 25 us, 45 and 300 GB/s weigh as much as rows do; the link limits one node only.
  EXPECT_NEAR(law.start_s(), 30e-6, 3e-6);
  EXPECT_NEAR(law.nic(), 46e9, 1e9);
  EXPECT_NEAR(law.nvlink(), 250e9, 45e9);
  for (const PublishedPoint& point : points) EXPECT_NEAR(law.seconds(point) / point.seconds, 1, 0.07);
}

TEST(PublishedLaw, StaysAtItsPriorsWithASingleRow) {
  PublishedPoint point = *published_point(row(2));
  point.seconds = 25e-6 + std::cbrt(std::pow(point.nic_bytes / 45e9, 3) + std::pow(point.nvlink_bytes / 300e9, 3));
  const PublishedLaw law = PublishedLaw::fit({&point, 1});
  EXPECT_NEAR(law.start_s(), 25e-6, 1e-7);
  EXPECT_NEAR(law.nic(), 45e9, 1e8);
}

}  // namespace
}  // namespace moecast
