#include "sim/analytic/parallel_efficiency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "models/core/error.h"
#include "tests/support/h200_machine.h"

namespace moecast {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// A machine whose one device takes so long, and which remembers what it was asked.
class OneDevice final : public Predictor {
 public:
  explicit OneDevice(double seconds) : seconds_(seconds) {}
  Prediction predict(const Architecture& /*a*/, const Deployment& d, const Workload& w,
                     const Without& without) const override {
    asked = d;
    work = w;
    removed = without;
    Prediction p;
    if (seconds_ > 0) p.latency = Seconds(seconds_);
    p.reason = seconds_ > 0 ? "" : "convolutions are not supported yet";
    return p;
  }
  mutable std::optional<Deployment> asked;
  mutable Workload work;
  mutable Without removed;

 private:
  double seconds_;
};

class Refuses final : public Predictor {
 public:
  Prediction predict(const Architecture& /*a*/, const Deployment& /*d*/, const Workload& /*w*/,
                     const Without& /*without*/) const override {
    throw InputError("batch", "is too large");
  }
};

Prediction of_milliseconds(double ms) {
  Prediction p;
  p.latency = Seconds(ms * 1e-3);
  return p;
}

Deployment degrees(int tp, int ep, int dp, int pp = 1, int cp = 1) {
  Deployment d;
  d.tp = tp;
  d.ep = ep;
  d.dp = dp;
  d.pp = pp;
  d.cp = cp;
  return d;
}

TEST(ExpertParallelEfficiency, IsOneDeviceOverAllDevicesHoweverTheyAreDivided_A25) {
  // 8 ms on one device, 2 ms on eight: 8 / (8 * 2) = 0.5. With two stages there are sixteen: 8 / (16 * 2) = 0.25.
  const std::vector<std::pair<Deployment, double>> cases{
      {degrees(8, 8, 1), 0.5},       {degrees(1, 8, 8), 0.5}, {degrees(2, 4, 4), 0.5},  // each expert over two
      {degrees(2, 8, 2, 1, 2), 0.5}, {degrees(1, 8, 1), 0.5},                           // as many copies of attention
      {degrees(1, 8, 8, 2), 0.25}};
  for (const auto& [deployment, expected] : cases) {
    const OneDevice machine(8e-3);
    Prediction answer = of_milliseconds(2);
    rate_expert_parallelism(machine, {}, deployment, {}, {}, answer);
    ASSERT_TRUE(answer.factors.expert_parallel_efficiency_ratio);
    EXPECT_DOUBLE_EQ(*answer.factors.expert_parallel_efficiency_ratio, expected)
        << deployment.tp << " " << deployment.ep << " " << deployment.dp;
    EXPECT_THAT(answer.warnings, IsEmpty());
  }
}

TEST(ExpertParallelEfficiency, AsksOneDeviceForTheSameWorkWhetherItFitsOrNot) {
  const OneDevice machine(1);
  Deployment deployment = degrees(2, 8, 2, 2, 2);
  deployment.moe_tp = 1;
  deployment.micro_batches = 4;
  deployment.redundant_experts = 16;
  deployment.backend = "sglang";
  Workload work;
  work.batch = 4096;
  work.training.replicas = 2;
  Without without;
  without.routing_overhead = true;
  Prediction answer = of_milliseconds(1000);
  rate_expert_parallelism(machine, {}, deployment, work, without, answer);
  Deployment one;
  one.backend = "sglang";
  EXPECT_EQ(*machine.asked, one);
  EXPECT_EQ(machine.work.batch, 4096);
  EXPECT_EQ(machine.work.training.replicas, 1);
  EXPECT_TRUE(machine.removed.routing_overhead);
  EXPECT_TRUE(machine.removed.memory_capacity);
  EXPECT_DOUBLE_EQ(devices_of(deployment, work), 16);
  work.phase = Phase::train;
  EXPECT_DOUBLE_EQ(devices_of(deployment, work), 32) << "replicas are of training";
}

TEST(ExpertParallelEfficiency, IsUnknownWithAReasonWhereOneDeviceCannotBeAsked) {
  const auto warnings = [](const Predictor& machine, const Deployment& deployment) {
    Prediction answer = of_milliseconds(2);
    answer.factors.expert_parallel_efficiency_ratio = 0.9;
    rate_expert_parallelism(machine, {}, deployment, {}, {}, answer);
    EXPECT_FALSE(answer.factors.expert_parallel_efficiency_ratio);
    return answer.warnings;
  };
  EXPECT_THAT(warnings(Refuses(), degrees(1, 8, 8)),
              ElementsAre("expert-parallel efficiency is not known: one device: batch is too large"));
  EXPECT_THAT(warnings(OneDevice(0), degrees(1, 8, 8)), ElementsAre(HasSubstr("convolutions are not supported")));
  Deployment fetching = degrees(1, 8, 8);
  fetching.offload.emplace();
  EXPECT_THAT(warnings(OneDevice(1), fetching), ElementsAre(HasSubstr("fetch")));
}

TEST(ExpertParallelEfficiency, AboveOneIsSaid) {
  // 16 ms on one device, 1 ms on eight: 2.
  Prediction answer = of_milliseconds(1);
  rate_expert_parallelism(OneDevice(16e-3), {}, degrees(1, 8, 8), {}, {}, answer);
  EXPECT_DOUBLE_EQ(*answer.factors.expert_parallel_efficiency_ratio, 2);
  EXPECT_THAT(answer.warnings, ElementsAre(HasSubstr("one device needs 16.0 times as long as 8")));
}

TEST(ExpertParallelEfficiency, NothingIsAskedWithoutExpertParallelismOrALatency) {
  const OneDevice machine(1);
  Prediction answer = of_milliseconds(1);
  answer.factors.expert_parallel_efficiency_ratio = 1;
  rate_expert_parallelism(machine, {}, degrees(8, 1, 1), {}, {}, answer);
  EXPECT_EQ(answer.factors.expert_parallel_efficiency_ratio, 1);
  Prediction none;
  rate_expert_parallelism(machine, {}, degrees(1, 8, 8), {}, {}, none);
  EXPECT_FALSE(none.factors.expert_parallel_efficiency_ratio);
  EXPECT_FALSE(machine.asked);
}

TEST(ExpertParallelEfficiency, OfAModelThatOneDeviceCannotHoldIsKnown_A25) {
  const Architecture deepseek = zoo_model("deepseek-v3");
  Workload w;
  w.batch = 512;
  w.context = 4000;
  const Deployment wide = degrees(1, 64, 64);
  ASSERT_EQ(h200_analytic().predict(deepseek, {}, w).status, Status::does_not_fit);
  Without anyhow;
  anyhow.memory_capacity = true;
  const Prediction alone = h200_analytic().predict(deepseek, {}, w, anyhow);
  Prediction answer = h200_analytic().predict(deepseek, wide, w);
  ASSERT_TRUE(alone.latency && answer.latency);
  rate_expert_parallelism(h200_analytic(), deepseek, wide, w, {}, answer);
  ASSERT_TRUE(answer.factors.expert_parallel_efficiency_ratio) << answer.warnings.back();
  EXPECT_DOUBLE_EQ(*answer.factors.expert_parallel_efficiency_ratio,
                   alone.latency->value() / (64 * answer.latency->value()));
  EXPECT_GT(*answer.factors.expert_parallel_efficiency_ratio, 0);
  EXPECT_LE(*answer.factors.expert_parallel_efficiency_ratio, 1);
}

}  // namespace
}  // namespace moecast
