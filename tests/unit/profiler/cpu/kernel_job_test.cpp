#include "profiler/cpu/kernel_job.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "models/core/error.h"

namespace moecast {
namespace {

TEST(Ring, ReturnsToAPieceAfterItsBytes) {
  const Buffer buffer(std::size_t{4} << 20);
  Ring ring(buffer, 4096, 3 * 4096.0);
  std::set<std::byte*> pieces;
  std::byte* first = ring.next();
  pieces.insert(first);
  for (int i = 0; i < 2; ++i) pieces.insert(ring.next());
  EXPECT_EQ(pieces.size(), 3U);
  EXPECT_EQ(ring.next(), first);
}

TEST(Ring, IsOnePieceWhenWarmAndTheBufferAtMost) {
  const Buffer buffer(std::size_t{4} << 20);
  Ring warm(buffer, 10000, 0);
  EXPECT_EQ(warm.next(), warm.next());
  EXPECT_LE(Ring(buffer, 4096, 1e15).bytes(), buffer.size());
  EXPECT_THROW(Ring(buffer, std::size_t{8} << 20, 0), DeviceError);
}

TEST(Ring, NamesWhatIsWorthReadingBeforeAMeasurement) {
  const Buffer buffer(std::size_t{400} << 20);
  std::vector<Region> whole;
  Ring(buffer, 4096, 20e6).append_regions(whole);
  ASSERT_EQ(whole.size(), 1U);
  EXPECT_NEAR(static_cast<double>(whole[0].size()), 20e6, 4096);
  // Of a large ring only the pieces before the next one, here over its end.
  Ring large(buffer, 1 << 20, 400e6);
  for (int i = 0; i < 10; ++i) large.next();
  std::vector<Region> behind;
  large.append_regions(behind);
  ASSERT_EQ(behind.size(), 2U);
  EXPECT_NEAR(static_cast<double>(behind[0].size() + behind[1].size()), 2.0 / 3 * cache_reach_bytes(), 2 << 20);
  EXPECT_EQ(behind[1].data(), buffer.data());
  EXPECT_EQ(behind[1].size(), std::size_t{10} << 20);
}

TEST(SettlingPasses, AreManyWhereASharedCacheTakesLinesReluctantly) {
  EXPECT_EQ(settling_passes(1e6, 150e6), 3);
  EXPECT_EQ(settling_passes(72e6, 150e6), 12);
  EXPECT_EQ(settling_passes(1e9, 150e6), 1);
  EXPECT_EQ(settling_passes(72e6, 33e6), 1);
  EXPECT_GE(cache_reach_bytes(), 16e6);
  EXPECT_LE(cache_reach_bytes(), 150e6);
}

TEST(MakeKernelJob, RunsEveryCpuKernel) {
  const KernelBuffers buffers(std::size_t{64} << 20);
  OperatorShape shape;
  shape.m = 3;
  shape.n = shape.k = 64;
  shape.tokens = 5;
  shape.experts = 8;
  shape.top_k = 2;
  shape.hidden = shape.width = 32;
  shape.batch = 2;
  shape.query = 1;
  shape.context = 9;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.head_dim = 16;
  shape.bytes = 4096;
  using enum OperatorKind;
  for (const OperatorKind kind : {gemm, router, permute, unpermute, activation, norm, elementwise, attention_prefill,
                                  attention_decode, copy, read, call, fused_moe}) {
    KernelPoint point;
    point.kind = kind;
    point.backend = kind == gemm || kind == call || kind == fused_moe ? "eigen" : "native";
    point.shape = shape;
    point.footprint = Bytes(1e6);
    const auto job = make_kernel_job(point, buffers);
    job->prepare();
    job->warm_up();
    EXPECT_NO_THROW(job->run()) << to_string(kind);
  }
}

TEST(MakeKernelJob, RefusesEmptyShapesAndKindsOfOtherMachines) {
  const KernelBuffers buffers(std::size_t{64} << 20);
  KernelPoint point;
  point.backend = "eigen";
  EXPECT_THROW(make_kernel_job(point, buffers), InputError);
  point.kind = OperatorKind::all_reduce;
  point.shape.bytes = 8;
  EXPECT_THROW(make_kernel_job(point, buffers), InputError);
}

}  // namespace
}  // namespace moecast
