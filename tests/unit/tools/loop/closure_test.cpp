#include "tools/loop/closure.h"

#include <gtest/gtest.h>

namespace moecast {
namespace {

/// Says 1 ms to everything.
class OneMillisecond final : public Predictor {
 public:
  Prediction predict(const Architecture& /*a*/, const Deployment& /*d*/, const Workload& /*w*/,
                     const Without& /*without*/) const override {
    Prediction p;
    p.latency = Seconds(1e-3);
    return p;
  }
};

ExecutedCase executed(double seconds, int threads = 1) {
  ExecutedCase layer;
  layer.asked.deployment.backend = "onednn";
  layer.asked.deployment.dtype = DType::fp32;
  layer.asked.deployment.threads = threads;
  layer.timing.latency = Seconds(seconds);
  return layer;
}

TEST(Closure, IsTheMedianRatioOfEachCombination) {
  std::vector<ExecutedCase> layers;
  for (const double s : {1.09e-3, 1.1e-3, 1.1e-3, 1.1e-3, 1.11e-3}) layers.push_back(executed(s));
  for (const double s : {2e-3, 2e-3, 2e-3, 2e-3}) layers.push_back(executed(s, 2));
  const auto closures = fit_closures(layers, OneMillisecond());
  ASSERT_EQ(closures.size(), 2U);
  EXPECT_NEAR(closures[0].factor, 1.1, 1e-3);
  EXPECT_NEAR(closures[0].half_width, 0.0091, 2e-4);
  EXPECT_EQ(closures[0].layers, 5);
  EXPECT_NEAR(closures[1].factor, 2.0, 1e-3);
}

TEST(Closure, StaysNearOneWhereLayersDisagree) {
  std::vector<ExecutedCase> layers;
  for (const double s : {0.7e-3, 0.9e-3, 1.02e-3, 1.2e-3, 1.4e-3}) layers.push_back(executed(s));
  const auto closures = fit_closures(layers, OneMillisecond());
  ASSERT_EQ(closures.size(), 1U);
  EXPECT_NEAR(closures[0].factor, 1.0, 0.01);
  EXPECT_GT(closures[0].half_width, 0.3);
}

TEST(Closure, NeedsFourLayers) {
  EXPECT_TRUE(fit_closures({executed(1e-3), executed(1e-3), executed(1e-3)}, OneMillisecond()).empty());
}

}  // namespace
}  // namespace moecast
