#include "profiler/cuda/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace moecast {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

TEST(GpuState, ReadsWhatNvidiaSmiPrints) {
  const auto state = parse_gpu_state(
      "580.65, 96.00.74, 700.00 W, 1980 MHz, 2619 MHz, 345 MHz, [N/A], 31, 0x1, Enabled,"
      " [Not Supported]\nsecond GPU, 1\n");
  EXPECT_THAT(state, AllOf(Contains(Pair("driver_version", "580.65")), Contains(Pair("power_limit", "700.00 W")),
                           Contains(Pair("persistence_mode", "Enabled")), Not(Contains(Key("clocks_mem"))),
                           Not(Contains(Key("mig_mode_current")))));
  EXPECT_TRUE(parse_gpu_state("").empty());
}

/// A program of this name before all others on the PATH, for as long as it lives.
class ProgramOnPath {
 public:
  ProgramOnPath(const std::string& name, const std::string& script)
      : folder_(fs::temp_directory_path() / ("moecast_path_" + std::to_string(getpid()))), before_(getenv("PATH")) {
    fs::create_directories(folder_);
    std::ofstream(folder_ / name) << "#!/bin/sh\n" << script << "\n";
    fs::permissions(folder_ / name, fs::perms::owner_all);
    setenv("PATH", (folder_.string() + ":" + before_).c_str(), 1);
  }
  ~ProgramOnPath() {
    setenv("PATH", before_.c_str(), 1);
    fs::remove_all(folder_);
  }

 private:
  fs::path folder_;
  std::string before_;
};

TEST(GpuState, AsksForTheGpuAtTheAddress) {
  const ProgramOnPath fake("nvidia-smi", "echo \"$3\"");
  EXPECT_EQ(read_gpu_state("0000:1B:00.0").at("driver_version"), "--id=0000:1B:00.0");
}

TEST(GpuState, IsEmptyWhenNvidiaSmiRefusesOrTheAddressIsNone) {
  const ProgramOnPath fake("nvidia-smi", "echo 580.65; exit 9");
  EXPECT_TRUE(read_gpu_state("0000:1B:00.0").empty());
  const ProgramOnPath working("nvidia-smi", "echo 580.65");
  EXPECT_TRUE(read_gpu_state("").empty());
  EXPECT_TRUE(read_gpu_state("0; true").empty());
}

}  // namespace
}  // namespace moecast
