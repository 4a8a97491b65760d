// Replicas of attention that step together: prompts that engines hold back until each replica has one.
#include <gtest/gtest.h>

#include "sim/step/service_instance.h"
#include "sim/step/service_simulation.h"
#include "tests/support/made_up_service.h"

namespace moecast {
namespace {

ServiceLimits four_replicas(std::int64_t wait_steps) {
  ServiceLimits limits;
  limits.prompts_together = 4;
  limits.prompts_wait_steps = wait_steps;
  return limits;
}

ServiceJob job(std::int64_t prompt, std::int64_t output) {
  ServiceJob made;
  made.prompt = made.to_prefill = prompt;
  made.output = output;
  return made;
}

TEST(ServiceReplicas, APromptWaitsForOthersButNotForEver) {
  std::vector<ServiceJob> jobs(6, job(100, 50));
  ServiceInstance instance(four_replicas(3), ServiceInstance::Role::both, jobs);
  double now = 0;
  const auto step = [&] {
    const ServiceStep planned = instance.plan();
    instance.complete(++now);
    return planned;
  };
  instance.enqueue(0);
  EXPECT_EQ(step().prompts, 1) << "nobody generates: nothing to hold it back for";
  instance.enqueue(1);
  for (int held = 0; held < 3; ++held) EXPECT_EQ(step().prompts, 0) << held;
  EXPECT_EQ(step().prompts, 1) << "after three steps it goes alone";
  for (std::size_t i = 2; i < 5; ++i) instance.enqueue(i);
  EXPECT_EQ(step().prompts, 0);
  instance.enqueue(5);
  EXPECT_EQ(step().prompts, 4) << "each replica has one";
  EXPECT_EQ(step().prompts, 0);
}

TEST(ServiceInstance, WhoReservesOutputsIsNeverThrownOut) {
  // Ten blocks of 16: two prompts of 32 fit at once, one whole request of 96.
  std::vector<ServiceRequest> requests(8, {0, 32, 64});
  const auto served = [&](bool reserves) {
    ServiceSetup setup;
    setup.limits.kv_blocks = 10;
    setup.limits.reserves_outputs = reserves;
    return simulate_service(requests, setup, [](const ServiceStep&) { return 0.01; });
  };
  EXPECT_EQ(served(true).counts.preemptions, 0);
  EXPECT_EQ(served(true).counts.most_running, 1);
  EXPECT_GT(served(false).counts.preemptions, 0);
  EXPECT_GT(served(false).counts.most_running, 1);
}

TEST(ServiceReplicas, WaitingCostsFirstTokensAndSparesTheOthers) {
  // A prompt takes as long on one replica as on all.
  const auto seconds = [](const ServiceStep& step) { return 0.01 + (step.prompts > 0 ? 0.05 : 0.0); };
  std::vector<ServiceRequest> requests;
  for (int i = 0; i < 400; ++i) requests.push_back({0.1 * i, 100, 100});
  const auto served = [&](std::int64_t wait_steps) {
    ServiceSetup setup;
    setup.limits = four_replicas(wait_steps);
    return simulate_service(requests, setup, seconds);
  };
  const ServiceOutcome waits = served(60);
  const ServiceOutcome goes = served(0);
  EXPECT_LT(waits.tpot->mean, 0.75 * goes.tpot->mean);
  EXPECT_GT(waits.ttft.mean, goes.ttft.mean);
}

}  // namespace
}  // namespace moecast
