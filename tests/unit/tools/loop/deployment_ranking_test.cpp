#include "tools/loop/deployment_ranking.h"

#include <gtest/gtest.h>

#include "models/core/error.h"
#include "tools/loop/nearest_step.h"

namespace moecast {
namespace {

TEST(DeploymentRanking, ComparesDeploymentsOfAModelUnderTheSameLoad) {
  std::vector<RankedService> services{
      {"a", "x", "tp1", 1.0, 10}, {"a", "x", "tp2", 2.0, 20},
      {"a", "x", "tp4", 3.0, 15}, {"a", "y", "tp1", 9.0, 1},  // alone under its load
      {"b", "x", "tp1", 0.1, 99},                             // another model
      {"a", "x", "tp1", 5.0, 12},                             // the same deployment once more
  };
  // Under load x tp1 is predicted as 2.24 and was 10.95 (means of its runs): before tp4 in both orders, behind tp2 in
  // one only; tp2 and tp4 are the wrong way round.
  const std::vector<DeploymentRanking> found = rank_deployments(services);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].model, "a");
  EXPECT_EQ(found[0].pairs, 3);
  EXPECT_DOUBLE_EQ(found[0].kendall_tau, -1.0 / 3);
  EXPECT_EQ(found[1].model, "all");
  EXPECT_DOUBLE_EQ(found[1].kendall_tau, -1.0 / 3);
  services[2].measured_s = services[1].measured_s;  // no order to find
  EXPECT_EQ(rank_deployments(services)[0].pairs, 2);
  EXPECT_TRUE(rank_deployments({}).empty());
}

StepRecord step(double prompt_tokens, double decodes, double kv, double latency_s) {
  StepRecord record;
  record.context_tokens = prompt_tokens;
  record.prompts = prompt_tokens > 0 ? 1 : 0;
  record.decodes = decodes;
  record.decode_kv = kv;
  record.latency_s = latency_s;
  return record;
}

TEST(NearestStep, IsTheLoggedStepOfItsKindThatIsNearest) {
  std::vector<StepRecord> log(30, step(0, 7, 1000, 99));  // warm-up
  log.push_back(step(0, 8, 1000, 0.005));
  log.push_back(step(0, 64, 1000, 0.009));
  log.push_back(step(512, 8, 1000, 0.030));
  log.push_back(step(512, 8, 1000, 0.034));
  const NearestStep nearest(log);
  EXPECT_EQ(nearest.seconds(step(0, 7, 1000, 1)), 0.005);
  EXPECT_EQ(nearest.seconds(step(0, 40, 1000, 1)), 0.009);
  EXPECT_EQ(nearest.seconds(step(600, 1, 10, 1)), 0.032);  // the median of two alike
  log.resize(30);
  EXPECT_THROW(NearestStep{log}, InputError);
}

}  // namespace
}  // namespace moecast
