#include "tools/loop/validation.h"

#include <gtest/gtest.h>

#include "models/architecture/zoo.h"

namespace moecast {
namespace {

/// Says 1 ms to everything, give or take 10 %.
class OneMillisecond final : public Predictor {
 public:
  Prediction predict(const Architecture& /*a*/, const Deployment& /*d*/, const Workload& /*w*/,
                     const Without& /*without*/) const override {
    Prediction p;
    p.latency = Seconds(1e-3);
    p.low = Seconds(0.9e-3);
    p.high = Seconds(1.1e-3);
    return p;
  }
};

/// So many models that took twice as long, all rounds alike.
Verdict verdict_of(int cases) {
  ExecutedCase one;
  one.asked.stratum = "transformers";
  one.asked.architecture = load_zoo(MOECAST_SOURCE_DIR "/models/zoo", "olmoe-1b-7b");
  one.asked.deployment.backend = "onednn";
  one.asked.deployment.dtype = DType::fp32;
  one.timing.latency = one.timing.low = one.timing.high = Seconds(2e-3);
  one.timing.round_s = {2e-3, 2e-3, 2e-3, 2e-3};
  const ValidationReport report =
      judge(std::vector<ExecutedCase>(static_cast<std::size_t>(cases), one), OneMillisecond(), Baselines({}));
  return report.strata.front().verdict.value();
}

TEST(Judge, AHandfulOfCasesDecidesNothing) {
  EXPECT_EQ(verdict_of(4), Verdict::undecided);
  EXPECT_EQ(verdict_of(5), Verdict::missed) << "a mean of five";
  EXPECT_EQ(verdict_of(20), Verdict::missed);
}

}  // namespace
}  // namespace moecast
