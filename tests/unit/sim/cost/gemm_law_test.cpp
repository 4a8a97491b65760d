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
      std::log(50.0), std::log(1e18), std::log(1e18), std::log(1e18), std::log(1e18), std::log(5e9), std::log(2.0);
  return {traits, p};
}

TEST(GemmLaw, IsTheLargerOfComputeAndMemoryWhenSharp) {
  const GemmLaw law = simple_law(gemm_traits("plain", DType::fp32, RowBucket::exact));
  // m 1: 4 * 1024 * 1024 B / 10 GB/s = 419.43 us, compute 2 * 2^20 / 100 GF = 21 us; + 1 us.
  EXPECT_NEAR(std::exp(law.log_seconds({1, 1024, 1024, 0, 0})), 420.43e-6, 0.05e-6);
  // m 512: compute 2 * 512 * 2^20 / 100 GF = 10.737 ms.
  EXPECT_NEAR(std::exp(law.log_seconds({512, 1024, 1024, 0, 0})), 10.738e-3, 0.01e-3);
}

TEST(GemmLaw, AddsPackingWhereTheLibraryPacksAtEveryCall) {
  const GemmLaw law = simple_law(gemm_traits("openblas", DType::fp32, RowBucket::exact));
  // m 1, 2^20 > 10^6: 1 us + 21 us + 4.194 MB (1/5 + 2/10) per GB/s = 1677.7 us.
  EXPECT_NEAR(std::exp(law.log_seconds({1, 1024, 1024, 0, 0})), (1 + 20.97 + 1677.7) * 1e-6, 1e-6);
  // 512 * 512 = 2.6e5: below, no packing: 1.0486 MB / 10 GB/s = 104.9 us.
  EXPECT_NEAR(std::exp(law.log_seconds({1, 512, 512, 0, 0})), 105.9e-6, 0.1e-6);
}

TEST(GemmLaw, StoresPaddedColumnsButComputesSixteenWide) {
  const GemmLaw law = simple_law(gemm_traits("onednn", DType::fp32, RowBucket::exact));
  EXPECT_DOUBLE_EQ(law.weight_bytes({1, 8, 100, 0, 0}), 64 * 100 * 4);
  EXPECT_NEAR(law.compute_seconds({1000, 8, 100, 0, 0}), 2.0 * 1000 * 16 * 100 / 100e9, 1e-12);
}

TEST(GemmLaw, BucketsRows) {
  const GemmLaw law = simple_law(gemm_traits("onednn", DType::bf16, RowBucket::tile16));
  EXPECT_NEAR(law.compute_seconds({130, 64, 64, 0, 0}), law.compute_seconds({192, 64, 64, 0, 0}), 1e-15);
}

TEST(GemmLaw, NeverGetsFasterWithMoreRowsOrAColderFootprint) {
  const GemmLaw law = simple_law(gemm_traits("onednn", DType::fp32, RowBucket::exact));
  double last = -1e9;
  for (int m = 1; m <= 2048; m *= 2) {
    const double t = law.log_seconds({static_cast<double>(m), 256, 512, 0, 0});
    EXPECT_GE(t, last);
    last = t;
  }
  EXPECT_LE(law.log_seconds({4, 256, 512, 1e6, 0}), law.log_seconds({4, 256, 512, 1e9, 1e9}) + 1e-12);
}

TEST(GemmLaw, FitRecoversTheLawFromItsOwnNoisyTimes) {
  std::mt19937 generator(5);
  std::normal_distribution<double> noise(0, 0.02);
  std::uniform_real_distribution<double> u(0, 1);
  const GemmTraits traits = gemm_traits("onednn", DType::fp32, RowBucket::exact);
  GemmLaw truth = simple_law(traits);
  Eigen::VectorXd p = truth.log_parameters();
  p(0) = std::log(0.5e-6);
  p(5) = std::log(0.4);
  p(6) = std::log(1.2);
  p(7) = std::log(0.5);
  for (int i = 0; i < GemmLaw::kNodes; ++i) p(GemmLaw::kScalars + i) = std::log(200e9) - 0.2 * i;
  truth = GemmLaw(traits, p);
  std::vector<GemmCall> calls;
  Eigen::VectorXd seconds(250);
  for (int i = 0; i < 250; ++i) {
    const double footprint = std::exp(std::log(1e5) + u(generator) * 9.5);
    calls.push_back({std::round(std::exp2(10 * u(generator))), std::round(std::exp2(6 + 6 * u(generator))),
                     std::round(std::exp2(6 + 6 * u(generator))), footprint, footprint, footprint});
    seconds(i) = std::exp(truth.log_seconds(calls.back()) + noise(generator));
  }
  const GemmLaw fitted = GemmLaw::fit(traits, calls, seconds);
  double error = 0;
  for (const GemmCall& call : calls) error += std::abs(fitted.log_seconds(call) - truth.log_seconds(call)) / 250;
  EXPECT_LT(error, 0.02);  // the noise of the data
}

}  // namespace
}  // namespace moecast
