#include "sim/cost/gemm_law.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace moecast {
namespace {

/// 1 us a call, 100 GFLOP/s, 10 GB/s everywhere, no overheads, rows free, sharp maximum.
GemmLaw simple_law(GemmTraits traits) {
  Eigen::VectorXd p(GemmLaw::kParameters);
  p.setConstant(std::log(10e9));
  p.head(GemmLaw::kScalars) << std::log(1e-6), std::log(100e9), std::log(1e-9), std::log(1e-9), std::log(1e-9),
      std::log(50.0), std::log(1e18), std::log(1e18), std::log(1e18), std::log(1e18), std::log(1000.0), std::log(2e6),
      std::log(5e9), std::log(2.0), std::log(2.0), std::log(1e-9), std::log(1e-9), std::log(1e-9);
  return {traits, p};
}

TEST(GemmLaw, IsTheLargerOfComputeAndMemoryWhenSharp) {
  const GemmLaw law = simple_law(gemm_traits("plain", DType::fp32, 1, RowBucket::exact, WeightPacking::ahead));
  // m 1: 4 * 1024 * 1024 B / 10 GB/s = 419.43 us, compute 2 * 2^20 / 100 GF = 21 us; + 1 us.
  EXPECT_NEAR(std::exp(law.log_seconds({1, 1024, 1024, 0, 0})), 420.43e-6, 0.05e-6);
  // m 512: compute 2 * 512 * 2^20 / 100 GF = 10.737 ms.
  EXPECT_NEAR(std::exp(law.log_seconds({512, 1024, 1024, 0, 0})), 10.738e-3, 0.01e-3);
}

TEST(GemmLaw, AddsPackingWhereTheLibraryPacksAtEveryCall) {
  const GemmLaw law =
      simple_law(gemm_traits("openblas", DType::fp32, 1, RowBucket::exact, WeightPacking::unless_small));
  // m 1, 1.05e6 > 10^6: 1 us + 21 us + 4.198 MB (1/5 + 2/10) per GB/s = 1679.4 us; 1,025 deep rows do not alias.
  EXPECT_NEAR(std::exp(law.log_seconds({1, 1024, 1025, 0, 0})), (1 + 20.99 + 1679.4) * 1e-6, 1e-6);
  // 1,024 deep, packing takes three times as long: 4.194 MB (3/5 + 2/10) per GB/s.
  EXPECT_NEAR(std::exp(law.log_seconds({1, 1024, 1024, 0, 0})), (1 + 20.97 + 3355.4) * 1e-6, 2e-6);
  // 512 * 512 = 2.6e5 and 512 results: small, no packing: 1.0486 MB / 10 GB/s = 104.9 us.
  EXPECT_NEAR(std::exp(law.log_seconds({1, 512, 512, 0, 0})), 105.9e-6, 0.1e-6);
  // 2048 results are too many, and 24 deep is too shallow.
  EXPECT_NEAR(std::exp(law.log_seconds({1, 2048, 128, 0, 0})), (1 + 5.24 + 419.4) * 1e-6, 1e-6);
  EXPECT_NEAR(std::exp(law.log_seconds({1, 512, 24, 0, 0})), (1 + 0.246 + 19.66) * 1e-6, 0.1e-6);
}

TEST(GemmLaw, StoresPaddedColumnsButComputesSixteenWide) {
  const GemmLaw law = simple_law(gemm_traits("onednn", DType::fp32, 1, RowBucket::exact, WeightPacking::ahead));
  EXPECT_DOUBLE_EQ(law.weight_bytes({1, 8, 100, 0, 0}), 64 * 100 * 4);
  EXPECT_NEAR(law.compute_seconds({1000, 8, 100, 0, 0}), 2.0 * 1000 * 16 * 100 / 100e9, 1e-12);
}

TEST(GemmLaw, GradesAliasingWhereKernelsReadWeightsThatAreNotPacked) {
  const GemmLaw unpacked = simple_law(gemm_traits("onednn", DType::fp32, 1, RowBucket::exact, WeightPacking::none));
  const GemmLaw packed = simple_law(gemm_traits("onednn", DType::fp32, 1, RowBucket::exact, WeightPacking::ahead));
  const std::vector<std::array<double, 3>> expected{{1000, 0, 0},  {1024, 1, 1}, {1536, 0, 0}, {2048, 2, 1},
                                                    {12288, 3, 1}, {8192, 4, 1}, {16384, 4, 1}};
  for (const auto& [n, graded, once] : expected) {
    EXPECT_EQ(unpacked.features({4, n, 64, 0, 0})(6), graded) << n;
    EXPECT_EQ(packed.features({4, n, 64, 0, 0})(6), once) << n;
  }
  // As they are: no padding to blocks of columns.
  EXPECT_DOUBLE_EQ(unpacked.weight_bytes({1, 8, 100, 0, 0}), 8 * 100 * 4);
}

TEST(GemmLaw, BucketsRows) {
  const GemmLaw law = simple_law(gemm_traits("onednn", DType::bf16, 1, RowBucket::tile16, WeightPacking::ahead));
  EXPECT_NEAR(law.compute_seconds({130, 64, 64, 0, 0}), law.compute_seconds({144, 64, 64, 0, 0}), 1e-15);
}

TEST(GemmLaw, StreamsWeightsOnceForEachBlockOfRowsUnlessTheyStayInCache) {
  const GemmLaw law = simple_law(gemm_traits("onednn", DType::bf16, 1, RowBucket::tile16, WeightPacking::ahead));
  const auto passes = [&](double m, double n, double k) {
    const GemmCall call{m, n, k, 0, 0};
    return law.memory_seconds(call) / law.memory_seconds({64, n, k, 0, 0});
  };
  // 128 MiB of weights, far above the cache of 2 MB: one whole pass for 16 rows more.
  EXPECT_NEAR(passes(80, 8192, 8192), 2, 1e-3);
  EXPECT_NEAR(passes(16, 8192, 8192), 1, 1e-9);
  // Four blocks: 3 / (1 + (1000/8192)^2) passes more.
  EXPECT_NEAR(passes(256, 8192, 8192), 1 + 3 / 1.0149, 1e-3);
  // 250 deep, they stay: 3 / (1 + 16).
  EXPECT_NEAR(passes(256, 262144, 250), 1 + 3 / 17.0, 1e-3);
  // 131,072 B: (2e6 / 131072)^2 = 232.8.
  EXPECT_NEAR(passes(80, 256, 256), 1 + 1 / 233.8, 1e-3);
}

TEST(GemmLaw, WaitsForTheBusiestThread) {
  const auto compute = [](int threads, DType dtype, RowBucket rows, const GemmCall& call) {
    return simple_law(gemm_traits("onednn", dtype, threads, rows, WeightPacking::ahead)).compute_seconds(call);
  };
  const auto ratio = [&](DType dtype, RowBucket rows, double m, double n) {
    const GemmCall call{m, n, 256, 0, 0};
    return compute(2, dtype, rows, call) / compute(1, dtype, rows, call);
  };
  // 5 blocks of 64 columns on 2 threads: 3 on one of them. 8 rows are one block, 65 two.
  EXPECT_NEAR(ratio(DType::fp32, RowBucket::exact, 8, 320), 6.0 / 5, 1e-12);
  EXPECT_NEAR(ratio(DType::fp32, RowBucket::exact, 8, 300), 6.0 / 5, 1e-12);
  EXPECT_NEAR(ratio(DType::fp32, RowBucket::exact, 65, 320), 1, 1e-12);
  // With tiles 80 rows are a call of 64 and one of 16, each of 5 blocks; 144 are 128 (10 blocks) and 16.
  EXPECT_NEAR(ratio(DType::bf16, RowBucket::tile16, 80, 320), 6.0 / 5, 1e-12);
  EXPECT_NEAR(ratio(DType::bf16, RowBucket::tile16, 144, 320), (128 + 16 * 6.0 / 5) / 144, 1e-12);
}

TEST(GemmLaw, NeverGetsFasterWithMoreRowsOrAColderFootprint) {
  const GemmLaw law = simple_law(gemm_traits("onednn", DType::fp32, 1, RowBucket::exact, WeightPacking::ahead));
  double last = -1e9;
  for (int m = 1; m <= 2048; m *= 2) {
    const double t = law.log_seconds({static_cast<double>(m), 256, 512, 0, 0});
    EXPECT_GE(t, last);
    last = t;
  }
  EXPECT_LE(law.log_seconds({4, 256, 512, 1e6, 0}), law.log_seconds({4, 256, 512, 1e9, 1e9}) + 1e-12);
}

TEST(GemmLaw, ReadsWeightsFromMemoryAtAnotherRateForOneAndForTwoRows) {
  const GemmTraits traits = gemm_traits("onednn", DType::fp32, 1, RowBucket::exact, WeightPacking::ahead);
  Eigen::VectorXd p = simple_law(traits).log_parameters();
  p(GemmLaw::kOneRow) = std::log(0.25);
  p(GemmLaw::kTwoRows) = std::log(0.75);
  // 100 GB/s up to 4 MB, 10 GB/s at 2 GB.
  for (int i = 0; i <= GemmLaw::kNearNode; ++i) p(GemmLaw::kScalars + i) = std::log(100e9);
  const GemmLaw law(traits, p);
  const auto read = [&](double rows, double footprint) {
    return law.memory_seconds({rows, 512, 512, footprint, 0, 0}) / law.memory_seconds({3, 512, 512, footprint, 0, 0});
  };
  EXPECT_NEAR(read(1, 3e9), 1.25, 1e-3);
  EXPECT_NEAR(read(2, 3e9), 1.75, 1e-3);
  EXPECT_NEAR(read(1.5, 3e9), 1.5, 1e-3) << "an expectation";
  EXPECT_NEAR(read(2.5, 3e9), 1.375, 1e-3);
  EXPECT_NEAR(read(16, 3e9), 1, 1e-3);
  EXPECT_NEAR(read(2, 2e6), 1, 1e-3) << "in a cache";
}

TEST(GemmLaw, FitRecoversTheLawFromItsOwnNoisyTimes) {
  std::mt19937 generator(5);
  std::normal_distribution<double> noise(0, 0.02);
  std::uniform_real_distribution<double> u(0, 1);
  const GemmTraits traits = gemm_traits("onednn", DType::fp32, 1, RowBucket::exact, WeightPacking::ahead);
  GemmLaw truth = simple_law(traits);
  Eigen::VectorXd p = truth.log_parameters();
  p(0) = std::log(0.5e-6);
  p(5) = std::log(0.4);
  p(6) = std::log(1.2);
  p(7) = std::log(0.5);
  p(GemmLaw::kOneRow) = std::log(0.2);
  p(GemmLaw::kTwoRows) = std::log(0.5);
  for (int i = 0; i < GemmLaw::kNodes; ++i) p(GemmLaw::kScalars + i) = std::log(200e9) - 0.2 * i;
  truth = GemmLaw(traits, p);
  std::vector<GemmCall> calls;
  constexpr int kCalls = 400;
  Eigen::VectorXd seconds(kCalls);
  for (int i = 0; i < kCalls; ++i) {
    const double footprint = std::exp(std::log(1e5) + u(generator) * 9.5);
    const double rows = i % 2 == 0 ? 1 + i / 2 % 4 : std::round(std::exp2(10 * u(generator)));
    calls.push_back({rows, std::round(std::exp2(6 + 6 * u(generator))), std::round(std::exp2(6 + 6 * u(generator))),
                     footprint, footprint, footprint});
    seconds(i) = std::exp(truth.log_seconds(calls.back()) + noise(generator));
  }
  const GemmLaw fitted = GemmLaw::fit(traits, calls, seconds);
  double error = 0;
  for (const GemmCall& call : calls) error += std::abs(fitted.log_seconds(call) - truth.log_seconds(call)) / kCalls;
  EXPECT_LT(error, 0.02);  // the noise of the data
  EXPECT_NEAR(std::exp(fitted.log_parameters()(GemmLaw::kTwoRows)), 0.5, 0.2) << "0.05 is what nobody knows better";
}

}  // namespace
}  // namespace moecast
