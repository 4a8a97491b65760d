#include "tools/cli/hardware_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "profiler/environment.h"
#include "tools/loop/machine_record.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class HardwareChoiceTest : public ::testing::Test {
 protected:
  HardwareChoiceTest() : root_(fs::temp_directory_path() / ("moecast_hardware_" + std::to_string(getpid()))) {
    fs::remove_all(root_);
    folders.own = root_.string();
  }
  ~HardwareChoiceTest() override { fs::remove_all(root_); }
  /// Written `age` seconds ago.
  void write(const std::string& name, const std::string& device, int age) {
    Profile profile;
    profile.name = name;
    profile.device = device;
    if (device == "cpu") profile.environment = environment_record(read_environment());
    write_profile((root_ / name).string(), profile);
    fs::last_write_time(root_ / name / "profile.json", fs::file_time_type::clock::now() - std::chrono::seconds(age));
  }
  fs::path root_;
  DataFolders folders;
};

TEST_F(HardwareChoiceTest, ThisMachineIsItsCpuThoughAGpuWasMeasuredLater) {
  write("cpu", "cpu", 200);
  write("gpu", "gpu", 100);
  EXPECT_EQ(choose_hardware("this-machine", folders).folder, (root_ / "cpu").string());
}

TEST_F(HardwareChoiceTest, AnUnfinishedRunIsNoProfile) {
  write("cpu", "cpu", 200);
  write("cpu.partial", "cpu", 100);
  write("cpu.old", "cpu", 50);
  EXPECT_EQ(find_profiles(folders).size(), 1U);
  EXPECT_EQ(choose_hardware("this-machine", folders).folder, (root_ / "cpu").string());
}

TEST_F(HardwareChoiceTest, KnowsTheProfileOfAGpu) {
  write("gpu", "gpu", 0);
  EXPECT_TRUE(choose_hardware("gpu", folders).gpu);
}

}  // namespace
}  // namespace moecast
