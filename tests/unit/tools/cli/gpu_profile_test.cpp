#include "tools/cli/gpu_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "models/core/error.h"
#include "tests/unit/profiler/cuda/fake_gpu.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;

class GpuProfile : public ::testing::Test {
 protected:
  GpuProfile() : root_(fs::temp_directory_path() / ("moecast_gpu_profile_" + std::to_string(getpid()))) {
    fs::remove_all(root_);
    gpu.facts.name = "NVIDIA H100 80GB HBM3";
    request.folder = (root_ / "gpu").string();
    request.points = {sized(10), sized(20), sized(40)};
    request.environment = {{"host_cpu_model", "X"}};
    request.clock = [this] { return gpu.now; };
  }
  ~GpuProfile() override { fs::remove_all(root_); }
  static KernelPoint sized(std::int64_t m, const char* backend = "cublas") {
    KernelPoint point = gemm(m, backend, 1e9);
    point.dtype = DType::bf16;
    point.shape.n = point.shape.k = 64;
    return point;
  }

  fs::path root_;
  FakeGpu gpu;
  GpuProfileRequest request;
};

TEST_F(GpuProfile, IsWrittenAndReadsBack) {
  const LaunchCosts launch{Seconds(2e-6), Seconds(1e-6), Seconds(1e-6), Seconds(4e-6)};
  const GpuProfileOutcome outcome = profile_gpu(gpu, &launch, request);
  EXPECT_TRUE(outcome.complete);
  EXPECT_EQ(outcome.points, 3U);
  const Profile profile = read_profile(request.folder);
  EXPECT_EQ(profile.device, "gpu");
  EXPECT_EQ(profile.name, "nvidia-h100-80gb-hbm3");
  EXPECT_EQ(profile.environment.at("host_cpu_model"), "X");
  EXPECT_EQ(profile.find("launch_graph")->value, 4e-6);
  EXPECT_NE(profile.find("sample_precision"), nullptr);
  const std::vector<Measurement> samples = read_samples(request.folder);
  ASSERT_EQ(samples.size(), 3U);
  for (const Measurement& row : samples) {
    EXPECT_NEAR(row.latency.value(), 1e-6 * static_cast<double>(row.point.shape.m), 1e-11);
    EXPECT_EQ(row.round_s.size(), 12U);
    EXPECT_EQ(row.point.footprint, Bytes(1e9));
  }
  EXPECT_FALSE(fs::exists(request.folder + ".partial"));
  EXPECT_FALSE(fs::exists(request.folder + "/calibration.json"));
}

TEST_F(GpuProfile, InterruptedKeepsWhatItHasAndGoesOn) {
  std::atomic<bool> stop{false};
  request.interrupted = &stop;
  request.progress = [&](const std::string& stage, double, Seconds) { stop = stage == "round 2 of 12"; };
  const GpuProfileOutcome stopped = profile_gpu(gpu, nullptr, request);
  EXPECT_FALSE(stopped.complete);
  EXPECT_FALSE(fs::exists(request.folder));
  EXPECT_EQ(read_samples(request.folder + ".partial").size(), 3U);

  stop = false;
  request.progress = nullptr;
  const GpuProfileOutcome whole = profile_gpu(gpu, nullptr, request);
  EXPECT_EQ(whole.resumed, 3U);
  for (const Measurement& row : read_samples(request.folder)) EXPECT_GE(row.round_s.size(), 13U);
}

TEST_F(GpuProfile, KeepsAnUnfinishedRunOfAnotherGpu) {
  std::atomic<bool> stop{true};
  request.interrupted = &stop;
  profile_gpu(gpu, nullptr, request);
  stop = false;
  FakeGpu other;
  other.facts.name = "NVIDIA H200";
  EXPECT_THROW(profile_gpu(other, nullptr, request), InputError);
  request.fresh = true;
  profile_gpu(other, nullptr, request);
  EXPECT_EQ(read_profile(request.folder).environment.at("device_name"), "NVIDIA H200");
}

TEST_F(GpuProfile, SaysWhatTheBudgetDidNotReach) {
  request.points.push_back(sized(1, "missing"));
  request.budget = Seconds(1e-6);  // the first point uses it up
  const GpuProfileOutcome outcome = profile_gpu(gpu, nullptr, request);
  EXPECT_EQ(outcome.points, 1U);
  EXPECT_THAT(outcome.profile.notes, Contains(HasSubstr("budget ended before 2 points")));
  EXPECT_THAT(outcome.profile.notes, Contains(HasSubstr("the library is not there")));
}

TEST_F(GpuProfile, WritesNothingWhenNothingCouldBeMeasured) {
  request.points = {sized(1, "missing")};
  try {
    profile_gpu(gpu, nullptr, request);
    FAIL() << "an empty profile";
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.problem(), HasSubstr("the library is not there"));
  }
  EXPECT_FALSE(fs::exists(request.folder));
  EXPECT_FALSE(fs::exists(request.folder + ".partial"));
}

}  // namespace
}  // namespace moecast
