#include "profiler/environment.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace moecast {
namespace {

namespace fs = std::filesystem;

class FakeSystem : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / ("moecast-environment-" + std::to_string(getpid()));
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  Environment read() { return read_environment((root_ / "proc").string(), (root_ / "sys").string()); }
  fs::path root_;
};

TEST_F(FakeSystem, ReadsCpuCachesAndMemory) {
  put("proc/cpuinfo", "processor\t: 0\nmodel name\t: Test CPU 9000\nflags\t\t: fpu avx2 hypervisor amx_bf16\n\n");
  put("proc/meminfo", "MemTotal:       1024 kB\nMemFree: 10 kB\n");
  put("proc/loadavg", "1.50 0.10 0.00 1/100 42\n");
  put("sys/devices/system/cpu/online", "0-1,4\n");
  const std::string cache = "sys/devices/system/cpu/cpu0/cache/";
  put(cache + "index0/type", "Data\n");
  put(cache + "index0/level", "1\n");
  put(cache + "index0/size", "48K\n");
  put(cache + "index0/shared_cpu_list", "0\n");
  put(cache + "index1/type", "Instruction\n");
  put(cache + "index2/type", "Unified\n");
  put(cache + "index2/level", "3\n");
  put(cache + "index2/size", "480M\n");
  put(cache + "index2/shared_cpu_list", "0-1,4\n");
  put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");

  const Environment environment = read();
  EXPECT_EQ(environment.cpu_model, "Test CPU 9000");
  EXPECT_EQ(environment.isa, (std::vector<std::string>{"amx_bf16", "avx2"}));
  EXPECT_TRUE(environment.virtualised);
  EXPECT_EQ(environment.memory_bytes, 1024U << 10);
  EXPECT_EQ(environment.logical_cpus, 3);
  EXPECT_DOUBLE_EQ(environment.load_average_ratio.value(), 0.5);  // 1.50 / 3 CPUs
  ASSERT_EQ(environment.caches.size(), 2U);
  EXPECT_EQ(environment.caches[1].bytes, 480ULL << 20);
  EXPECT_EQ(environment.caches[1].sharing_cpus, 3);
  EXPECT_EQ(environment.transparent_huge_pages, "madvise");
  EXPECT_FALSE(environment.governor.has_value());
}

TEST_F(FakeSystem, LeavesUnknownWhatCannotBeRead) {
  const Environment environment = read();
  EXPECT_TRUE(environment.cpu_model.empty());
  EXPECT_FALSE(environment.memory_bytes.has_value());
  EXPECT_FALSE(environment.load_average_ratio.has_value());
  EXPECT_TRUE(environment.caches.empty());
}

TEST_F(FakeSystem, SurvivesGarbage) {
  put("proc/cpuinfo", std::string("\0:::\nflags", 10));
  put("proc/loadavg", "busy\n");
  put("sys/devices/system/cpu/online", "5-,x-9,,0-99999999\n");
  const Environment environment = read();
  EXPECT_FALSE(environment.load_average_ratio.has_value());
  EXPECT_EQ(environment.logical_cpus, 0);
}

TEST(TimingWarnings, NameTheGovernorAndTheLoad) {
  Environment environment;
  environment.governor = "powersave";
  environment.load_average_ratio = 0.9;
  const auto warnings = timing_warnings(environment);
  ASSERT_EQ(warnings.size(), 2U);
  EXPECT_NE(warnings[0].find("powersave"), std::string::npos);
}

TEST(SameMachine, IsFalseForAnotherCpu) {
  Environment a;
  a.cpu_model = "A";
  Environment b = a;
  EXPECT_TRUE(same_machine(a, b));
  b.isa = {"avx512f"};
  EXPECT_FALSE(same_machine(a, b));
}

}  // namespace
}  // namespace moecast
