#include "profiler/cuda/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/cuda/plan.h"
#include "tests/unit/profiler/cuda/fake_gpu.h"

namespace moecast {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

GpuInfo h100() {
  GpuInfo info;
  info.name = "NVIDIA H100 80GB HBM3";
  info.major = 9;
  info.multiprocessors = 132;
  info.memory = Bytes(8.5e10);
  info.l2_cache = Bytes(5.2e7);
  info.sm_clock_hz = 1.98e9;
  info.environment["cublas"] = "cuBLAS 13.1.0";
  return info;
}

KernelPoint sized_gemm(std::int64_t m, DType dtype, const char* backend) {
  KernelPoint point = gemm(m, backend);
  point.dtype = dtype;
  point.shape.n = 1000;
  point.shape.k = 500;
  return point;
}

KernelPoint bytes_point(OperatorKind kind, std::int64_t bytes) {
  KernelPoint point = gemm(10, kGpuKernelBackend);  // the fake takes 10 us for it
  point.kind = kind;
  point.shape.bytes = bytes;
  return point;
}

Profile measured_profile(FakeGpu& gpu, const std::vector<KernelPoint>& points, const LaunchCosts* launch = nullptr) {
  GpuSessionOptions options;
  options.clock = [&gpu] { return gpu.now; };
  return gpu_profile(gpu.info(), run_gpu_session(gpu, points, options), launch, "2026-11-26");
}

TEST(GpuRecord, TellsTheDatasheetFromWhatWasMeasured) {
  FakeGpu gpu;
  gpu.facts = h100();
  const Profile profile = measured_profile(gpu, {bytes_point(OperatorKind::read, 1'000'000)});
  EXPECT_EQ(profile.name, "nvidia-h100-80gb-hbm3");
  EXPECT_EQ(profile.device, "gpu");
  EXPECT_EQ(profile.find("memory_bandwidth")->origin, Origin::datasheet);
  EXPECT_EQ(profile.find("memory_bandwidth")->value, 3.35e12);
  const HardwareQuantity* read = profile.find("read_bandwidth_1000000_bytes");
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(read->origin, Origin::measured);
  EXPECT_NEAR(read->value, 1e6 / 10e-6, 1);  // 1 MB in 10 us
  EXPECT_LE(*read->low, read->value);
  EXPECT_GE(*read->high, read->value);
}

TEST(GpuRecord, CountsBothDirectionsOfACopy) {
  FakeGpu gpu;
  const Profile profile = measured_profile(gpu, {bytes_point(OperatorKind::copy, 1'000'000)});
  EXPECT_NEAR(profile.find("copy_bandwidth_2000000_bytes")->value, 2e6 / 10e-6, 1);
}

TEST(GpuRecord, TheHostsBandwidthIsThatOfTheLargestTransfer) {
  FakeGpu gpu;
  const Profile profile = measured_profile(gpu, {bytes_point(OperatorKind::weight_transfer, 1'000'000),
                                                 bytes_point(OperatorKind::weight_transfer, 2'000'000)});
  ASSERT_NE(profile.find(kHostBandwidth), nullptr);
  EXPECT_NEAR(profile.find(kHostBandwidth)->value, 2e6 / 10e-6, 1);
}

TEST(GpuRecord, KeepsTheBestGemmRateOfEachArithmetic) {
  FakeGpu gpu;
  gpu.facts = h100();
  KernelPoint slow = sized_gemm(20, DType::bf16, kGpuGemmBackend);
  slow.shape.n = 100;
  const Profile profile = measured_profile(
      gpu, {slow, sized_gemm(10, DType::bf16, kGpuGemmBackend), sized_gemm(10, DType::fp32, kGpuTf32Backend)});
  EXPECT_NEAR(profile.find("gemm_rate_bf16")->value, 2.0 * 1000 * 500 / 1e-6, 1e3);  // a row takes 1 us
  EXPECT_NE(profile.find("gemm_rate_tf32"), nullptr);
  EXPECT_EQ(profile.find("gemm_rate_fp32"), nullptr);
  ASSERT_EQ(profile.backends.size(), 2U);
  EXPECT_EQ(profile.backends[0].library, "cuBLAS 13.1.0");
  EXPECT_EQ(profile.backends[1].implementation, "TF32 tensor cores");
}

TEST(GpuRecord, LeavesOutWhatIsUnknown) {
  FakeGpu gpu;
  gpu.facts.name = "NVIDIA H100 PCIe";  // not the SXM part of the table
  const Profile profile = measured_profile(gpu, {gemm(3, "missing"), gemm(3)});
  EXPECT_EQ(profile.find("peak_bf16"), nullptr);
  EXPECT_EQ(profile.find("sm_clock_max"), nullptr);
  EXPECT_EQ(profile.find("launch_graph"), nullptr);
  EXPECT_THAT(profile.notes, Contains(HasSubstr("no datasheet of \"NVIDIA H100 PCIe\"")));
  EXPECT_THAT(profile.notes, Contains(HasSubstr("the library is not there (1)")));
}

TEST(GpuRecord, ReadsBackAsItWasWritten) {
  FakeGpu gpu;
  gpu.facts = h100();
  const LaunchCosts launch{Seconds(2e-6), Seconds(1.5e-6), Seconds(1e-6), Seconds(4e-6)};
  const Profile profile = measured_profile(gpu, {sized_gemm(10, DType::bf16, kGpuGemmBackend)}, &launch);
  const Profile back = parse_profile_text(profile_text(profile), "here");
  EXPECT_EQ(profile_text(back), profile_text(profile));
  EXPECT_EQ(back.find("launch_graph_node")->value, 1e-6);
  EXPECT_EQ(back.find("launch_host")->unit, "s");
}

}  // namespace
}  // namespace moecast
