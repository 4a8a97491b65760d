#include "tools/loop/closure.h"

#include <gtest/gtest.h>

#include <cmath>

namespace moecast {
namespace {

/// Says 1 ms to everything, give or take 10 %.
class OneMillisecond final : public Predictor {
 public:
  Prediction predict(const Architecture& /*a*/, const Deployment& /*d*/, const Workload& /*w*/,
                     const Without& /*without*/) const override {
    Prediction p;
    p.latency = Seconds(1e-3);
    p.high = Seconds(1.1e-3);
    return p;
  }
};

ExecutedLayer executed(double seconds, int threads = 1) {
  ExecutedLayer layer;
  layer.deployment.backend = "onednn";
  layer.deployment.dtype = DType::fp32;
  layer.deployment.threads = threads;
  layer.latency = Seconds(seconds);
  return layer;
}

TEST(Closure, IsTheMedianRatioOfEachCombination) {
  std::vector<ExecutedLayer> layers;
  for (const double s : {1.09e-3, 1.1e-3, 1.1e-3, 1.1e-3, 1.11e-3}) layers.push_back(executed(s));
  for (const double s : {2e-3, 2e-3, 2e-3, 2e-3}) layers.push_back(executed(s, 2));
  const Closures closures = fit_closures(layers, OneMillisecond());
  ASSERT_EQ(closures.factors.size(), 2U);
  EXPECT_NEAR(closures.factor("onednn", DType::fp32, 1, KernelStrategy::sorted_grouped), 1.078, 1e-3)
      << "10 % of the layers seen: others need not share all of it";
  EXPECT_NEAR(closures.factor("onednn", DType::fp32, 2, KernelStrategy::sorted_grouped), 2.0, 0.01);
  EXPECT_EQ(closures.factor("openblas", DType::fp32, 1, KernelStrategy::sorted_grouped), 1.0);
  EXPECT_EQ(closures.factors[0].layers, 5);
}

TEST(Closure, StaysNearOneWhereLayersDisagree) {
  std::vector<ExecutedLayer> layers;
  for (const double s : {0.7e-3, 0.9e-3, 1.02e-3, 1.2e-3, 1.4e-3}) layers.push_back(executed(s));
  const Closures closures = fit_closures(layers, OneMillisecond());
  ASSERT_EQ(closures.factors.size(), 1U);
  EXPECT_NEAR(closures.factors[0].factor, 1.0, 0.01);
  EXPECT_GT(closures.interval_ratio, 3.0);
}

TEST(Closure, NarrowsIntervalsThatLayersKeepWithin) {
  std::vector<ExecutedLayer> layers;
  for (int i = 0; i < 60; ++i) layers.push_back(executed(1e-3 * std::exp(0.05 * (i % 20 - 9.5) / 9.5)));
  const Closures closures = fit_closures(layers, OneMillisecond());
  // The outermost tenth lies at 5 %, and the kernels allow ln 1.1 = 9.5 %.
  EXPECT_NEAR(closures.interval_ratio, 0.05 / std::log(1.1), 0.01);
}

TEST(Closure, NeedsFourLayers) {
  const Closures closures = fit_closures({executed(1e-3), executed(1e-3), executed(1e-3)}, OneMillisecond());
  EXPECT_TRUE(closures.factors.empty());
  EXPECT_EQ(closures.interval_ratio, 1.0);
}

}  // namespace
}  // namespace moecast
