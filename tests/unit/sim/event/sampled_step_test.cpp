// Sampled routings of one rank: the router and the capacity of the model decide, as they do on many ranks.
#include "sim/event/sampled_step.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>

#include "models/core/error.h"

namespace moecast {
namespace {

Prediction sampled(const std::function<void(MoeBlock&)>& change, ExpertLoad load) {
  static const std::unique_ptr<Predictor> xeon =
      Predictor::load(MOECAST_SOURCE_DIR "/hwprofiles/intel-xeon-processor-2cpu", Engine::event);
  Architecture a;
  a.name = "layer";
  a.hidden = 1024;
  a.dtype = DType::fp32;
  MoeBlock block;
  ExpertSpec expert;
  expert.width = 1024;
  block.experts.push_back({16, expert, ""});
  block.router.top_k = 2;
  change(block);
  a.decoder.push_back({{block}});
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = 256;
  w.load = std::move(load);
  return sample_step(*xeon, a, {}, w, 10, 1);
}

const ExpertLoad kSkewed{LoadKind::zipf, 1.2, {}, 1};

TEST(SampledStep, ExpertsThatChooseAndSoftOnesAreEven) {
  EXPECT_GT(sampled([](MoeBlock&) {}, kSkewed).distribution->row_imbalance, 4);
  for (const RouterKind kind : {RouterKind::expert_choice, RouterKind::soft}) {
    const Prediction p = sampled([&](MoeBlock& block) { block.router.kind = kind; }, kSkewed);
    EXPECT_NEAR(p.distribution->row_imbalance, 1, 1e-9);
    EXPECT_NEAR(p.distribution->distinct_ratio, 1, 1e-9);
  }
}

TEST(SampledStep, ACapacityDropsWhatItSays) {
  const Prediction p = sampled([](MoeBlock& block) { block.capacity.eval_factor = 0.1; }, {});
  // ceil(0.1 * 256 * 2 / 16) = 4 slots of 16 experts: 64 of 512 rows are kept.
  EXPECT_NEAR(p.distribution->dropped_ratio, 1 - 64.0 / 512, 1e-9);
  EXPECT_NEAR(p.distribution->row_imbalance, 1, 1e-9);
}

TEST(SampledStep, GroupsLimitTheChoice) {
  const auto grouped = [](MoeBlock& block) {
    block.router.groups = 4;
    block.router.top_groups = 1;
  };
  // Tokens whose one group is another cannot choose the most popular expert as their second.
  EXPECT_LT(sampled(grouped, kSkewed).distribution->row_imbalance,
            0.95 * sampled([](MoeBlock&) {}, kSkewed).distribution->row_imbalance);
}

TEST(SampledStep, RefusesWhatIsNotSampled) {
  EXPECT_THROW(sampled([](MoeBlock& block) { block.sub_token_heads = 2; }, {}), InputError);
}

TEST(SampledStep, LoadsOfAnySkewEnd) {
  EXPECT_NEAR(sampled([](MoeBlock&) {}, {LoadKind::log_normal, 20, {}, 1}).distribution->row_imbalance, 8, 0.1);
}

}  // namespace
}  // namespace moecast
