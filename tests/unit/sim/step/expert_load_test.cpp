// What a load of experts does to a step of an engine on GPUs.
#include <gtest/gtest.h>

#include "tests/support/h200_machine.h"

namespace moecast {
namespace {

double prompts_s(const ExpertLoad& load, int ep = 8) {
  Deployment d;
  d.tp = 8;
  d.ep = ep;
  Workload w;
  w.phase = Phase::prefill;
  w.prompt = 4096;
  w.load = load;
  return h200_analytic().predict(zoo_model("qwen3-235b-a22b"), d, w).latency->value();
}

ExpertLoad law(LoadKind kind, double parameter) {
  ExpertLoad load;
  load.kind = kind;
  load.parameter = parameter;
  return load;
}

/// Of so many experts in a row the same weight, of all others none.
ExpertLoad hot(std::size_t first, std::size_t count, std::size_t step = 1) {
  ExpertLoad load;
  load.kind = LoadKind::histogram;
  load.histogram.assign(128, 0.0);
  for (std::size_t i = 0; i < count; ++i) load.histogram[first + i * step] = 1;
  return load;
}

TEST(ExpertLoadOnGpus, MoreSkewNeverTakesLess) {
  const double even = prompts_s({});
  double before = even;
  for (const double sigma : {0.1, 0.5, 1.0, 2.0, 3.0}) {
    const double seconds = prompts_s(law(LoadKind::log_normal, sigma));
    EXPECT_GT(seconds, before * 0.999) << sigma;
    before = seconds;
  }
  EXPECT_LT(prompts_s(law(LoadKind::log_normal, 0.1)), 1.06 * even) << "nearly even";
  EXPECT_GT(prompts_s(law(LoadKind::zipf, 3)), prompts_s(law(LoadKind::zipf, 0.5)));
}

TEST(ExpertLoadOnGpus, ARecordedLoadIsThatOfItsRanks) {
  // All tokens on the sixteen experts of one rank, against two on each of eight.
  const double one_rank = prompts_s(hot(0, 16));
  const double spread = prompts_s(hot(0, 16, 8));
  EXPECT_GT(one_rank, 1.5 * spread);
  EXPECT_GT(one_rank, 1.5 * prompts_s({}));
  EXPECT_NEAR(prompts_s(hot(112, 16)) / one_rank, 1, 1e-6) << "whichever rank it is";
  // Without expert parallelism all ranks hold a part of every expert: nobody waits.
  EXPECT_LT(prompts_s(hot(0, 16), 1), 1.05 * prompts_s(hot(0, 16, 8), 1));
}

}  // namespace
}  // namespace moecast
