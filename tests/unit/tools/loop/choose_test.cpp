#include "tools/loop/choose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moecast {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// Least sure about large n, whatever else.
class FakeModel : public CostModel {
 public:
  [[nodiscard]] KernelCost cost(const KernelPoint&, double) const override { return {}; }
  [[nodiscard]] double uncertainty(const KernelPoint& point) const override {
    return static_cast<double>(point.shape.n) / 1e5;
  }
  [[nodiscard]] bool knows(OperatorKind, const std::string&, DType, int) const override { return true; }
};

KernelPoint gemm(std::int64_t m, std::int64_t n) {
  KernelPoint point;
  point.backend = "onednn";
  point.shape.m = m;
  point.shape.n = n;
  point.shape.k = 512;
  return point;
}

TEST(ChooseUncertain, TakesTheLeastSureFirst) {
  const std::vector<KernelPoint> candidates{gemm(8, 64), gemm(8, 4096), gemm(8, 512)};
  EXPECT_THAT(choose_uncertain(FakeModel(), candidates, {}, 2), ElementsAre(1, 2));
}

TEST(ChooseUncertain, SpreadsPointsApart) {
  // The second is nearly a copy of the first; the third is 8 times less uncertain, but 3 octaves away in n.
  const std::vector<KernelPoint> candidates{gemm(8, 4096), gemm(8, 4097), gemm(8, 512)};
  EXPECT_THAT(choose_uncertain(FakeModel(), candidates, {}, 2), ElementsAre(1, 2));
}

TEST(ChooseUncertain, NeverRepeatsAMeasuredPoint) {
  const std::vector<KernelPoint> candidates{gemm(8, 4096)};
  EXPECT_THAT(choose_uncertain(FakeModel(), candidates, candidates, 4), IsEmpty());
}

TEST(OctaveDistance, CountsDoublings) {
  EXPECT_DOUBLE_EQ(octave_distance(gemm(7, 63), gemm(31, 63)), 2);  // log2(32 / 8)
  EXPECT_DOUBLE_EQ(octave_distance(gemm(7, 63), gemm(7, 63)), 0);
}

}  // namespace
}  // namespace moecast
