#include "models/plan/token_classes.h"

#include <gtest/gtest.h>

#include <numeric>

#include "models/core/error.h"
#include "models/routing/expert_cache.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

MoeBlock experts(std::int64_t count, int top_k) {
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = 64;
  moe.experts = {{count, expert, ""}};
  moe.router.top_k = top_k;
  return moe;
}

Workload skewed(std::uint64_t seed = 1) {
  Workload w;
  w.load.kind = LoadKind::log_normal;
  w.load.parameter = 1;
  w.load.seed = seed;
  return w;
}

TaskMix three_tasks(std::int64_t private_experts, bool one_a_step) {
  return {{{"translation", 0.5}, {"classification", 0.2}, {"qa", 0.3}}, private_experts, one_a_step};
}

double hit_ratio(const MoeBlock& moe, const Workload& w, double tokens, int places, ResidencyPolicy policy) {
  const CacheUse use = cache_use(mixed_touch_probability(moe, w, tokens), places, policy);
  return 1 - use.missed / use.touched;
}

TEST(TokenClasses, AllSharedExpertsAreAsOneTask_A23) {
  const MoeBlock moe = experts(48, 4);
  for (const bool one_a_step : {false, true}) {
    Workload single = skewed();
    Workload mix = skewed();
    mix.tasks = three_tasks(0, one_a_step);
    const std::vector<double> one = mixed_touch_probability(moe, single, 16);
    const std::vector<double> all = mixed_touch_probability(moe, mix, 16);
    for (std::size_t e = 0; e < one.size(); ++e) {
      EXPECT_NEAR(all[e], one[e], 1e-12);
      EXPECT_NEAR(mixed_inclusion(moe, mix)[e], mixed_inclusion(moe, single)[e], 1e-12);
    }
    for (const ResidencyPolicy policy : {ResidencyPolicy::most_popular, ResidencyPolicy::lru}) {
      EXPECT_NEAR(hit_ratio(moe, mix, 16, 20, policy), hit_ratio(moe, single, 16, 20, policy), 1e-9);
    }
  }
}

TEST(TokenClasses, HitRateOfATaskMixIsMonotoneInTheCache_A23) {
  const MoeBlock moe = experts(48, 4);
  for (const std::int64_t own : {0, 4, 12}) {
    for (const bool one_a_step : {false, true}) {
      Workload mix = skewed(3);
      mix.tasks = three_tasks(own, one_a_step);
      for (const ResidencyPolicy policy : {ResidencyPolicy::most_popular, ResidencyPolicy::lru}) {
        double last = -1;
        for (int places = 0; places <= 48; ++places) {
          const double hits = hit_ratio(moe, mix, 8, places, policy);
          EXPECT_GE(hits, last - 1e-12) << own << " private, " << places << " places";
          last = hits;
        }
        EXPECT_NEAR(last, 1, 1e-12);
      }
    }
  }
}

TEST(TokenClasses, PrivateExpertsOfOtherTasksAreNeverChosen_A23) {
  const MoeBlock moe = experts(12, 2);
  Workload mix = skewed();
  mix.tasks = {{{"translation", 0.5}, {"qa", 0.5}}, 4, false};  // 4 shared, 4 of each
  const std::vector<TokenClass> classes = token_classes(moe, mix);
  ASSERT_EQ(classes.size(), 2U);
  const std::vector<double> translation = class_inclusion(moe, mix, classes[0]);
  for (std::size_t e = 8; e < 12; ++e) EXPECT_EQ(translation[e], 0);
  EXPECT_NEAR(std::accumulate(translation.begin(), translation.end(), 0.0), 2, 1e-9);
  const std::vector<double> both = mixed_inclusion(moe, mix);
  EXPECT_NEAR(std::accumulate(both.begin(), both.end(), 0.0), 2, 1e-9);
  // A task that nobody asks for is as if it were not there, its experts apart.
  mix.tasks.tasks = {{"translation", 1}, {"qa", 0}};
  EXPECT_EQ(token_classes(moe, mix).size(), 1U);
}

TEST(TokenClasses, AStepOfOneTaskUsesFewerExpertsThanAMixedOne) {
  const MoeBlock moe = experts(24, 2);
  Workload mix = skewed();
  mix.tasks = three_tasks(6, false);
  const std::vector<double> mixed = mixed_touch_probability(moe, mix, 64);
  mix.tasks.one_a_step = true;
  const std::vector<double> alone = mixed_touch_probability(moe, mix, 64);
  EXPECT_LT(std::accumulate(alone.begin(), alone.end(), 0.0), std::accumulate(mixed.begin(), mixed.end(), 0.0));
}

TEST(TokenClasses, ModalitiesChooseTheirOwnExperts_C24) {
  MoeBlock moe = experts(8, 2);
  moe.experts[0].modality = "text";
  moe.experts.push_back({4, moe.experts[0].expert, "image"});
  Workload w = skewed();
  EXPECT_EQ(token_classes(moe, w).front().name, "text");
  w.modalities = {{"text", 0.9}, {"image", 0.1}};
  const std::vector<double> mean = mixed_inclusion(moe, w);
  EXPECT_NEAR(std::accumulate(mean.begin(), mean.begin() + 8, 0.0), 1.8, 1e-9);
  EXPECT_NEAR(std::accumulate(mean.begin() + 8, mean.end(), 0.0), 0.2, 1e-9);
}

TEST(TokenClasses, WrongMixesAreNamed) {
  MoeBlock moe = experts(8, 2);
  Workload w = skewed();
  w.tasks = three_tasks(3, false);  // nine of eight
  EXPECT_THROW(token_classes(moe, w), InputError);
  w.tasks = {{{"a", 0.5}, {"b", 0.6}}, 1, false};
  EXPECT_THROW(token_classes(moe, w), InputError);
  w.tasks = {{{"a", 0.5}, {"b", 0.5}}, 4, false};
  moe.router.top_k = 5;  // no shared ones, four of its own
  EXPECT_THROW(token_classes(moe, w), InputError);
  moe = experts(8, 2);
  moe.experts[0].modality = "text";
  w.tasks = {};
  w.modalities = {{"sound", 1}};
  EXPECT_THROW(token_classes(moe, w), InputError);
  w.modalities = {};
  w.tasks = {{{"a", 1}}, 1, false};
  EXPECT_THROW(token_classes(moe, w), InputError);
}

}  // namespace
}  // namespace moecast
