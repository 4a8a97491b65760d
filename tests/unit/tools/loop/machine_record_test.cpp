#include "tools/loop/machine_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moecast {
namespace {

Environment xeon() {
  Environment machine;
  machine.cpu_model = "Intel(R) Xeon(R) Processor";
  machine.isa = {"avx2", "avx512f"};
  machine.allowed_cpus = {0, 1};
  return machine;
}

TEST(MachineRecord, LeavesOutWhatIsUnknown) {
  const auto record = environment_record(xeon());
  EXPECT_EQ(record.at("isa"), "avx2 avx512f");
  EXPECT_FALSE(record.contains("governor"));
  EXPECT_FALSE(record.contains("memory_bytes"));
}

TEST(MachineRecord, AnotherCpuOrOtherExtensionsAreAnotherMachine) {
  Profile profile;
  profile.environment = environment_record(xeon());
  EXPECT_TRUE(recorded_on(profile, xeon()));
  Environment other = xeon();
  other.cpu_model = "AMD EPYC";
  EXPECT_FALSE(recorded_on(profile, other));
  other = xeon();
  other.isa = {"avx2"};
  EXPECT_FALSE(recorded_on(profile, other));
}

TEST(MachineName, IsShortAndLowerCase) {
  EXPECT_EQ(machine_name(xeon()), "intel-xeon-processor-2cpu");
  EXPECT_EQ(machine_name(Environment()), "cpu-0cpu");
}

TEST(ProfiledThreads, SurviveTheProfile) {
  Profile profile;
  EXPECT_THAT(profiled_threads(profile), testing::ElementsAre(1));
  record_threads(profile, {2, 1});
  EXPECT_THAT(profiled_threads(profile), testing::ElementsAre(1, 2));
}

}  // namespace
}  // namespace moecast
