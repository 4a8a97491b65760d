#include "sim/cost/gemm_lanes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "tests/support/synthetic_calibration.h"

namespace moecast {
namespace {

/// Largest and median |ln| between lanes and cost model over random calls of the ranges that people ask for.
void expect_agreement(const Calibration& calibration, const std::string& backend) {
  const auto shared = std::make_shared<const Calibration>(calibration);
  const auto model = make_cost_model(shared);
  const GemmLanes lanes(*shared->find_gemm(backend, DType::fp32, 1));
  std::mt19937 generator(2);
  std::bernoulli_distribution power_of_two(0.2);
  std::uniform_real_distribution<double> u(0, 1);
  std::vector<double> errors;
  for (int round = 0; round < 100; ++round) {
    GemmLanes::Calls calls{};
    GemmLanes::Costs costs{};
    std::vector<std::pair<KernelPoint, double>> asked;
    for (std::size_t i = 0; i < kLanes; ++i) {
      KernelPoint p;
      p.backend = backend;
      const double m = std::exp2(11 * u(generator));
      const double octaves = 2 + 12 * u(generator);
      p.shape.n = std::llround(std::exp2(power_of_two(generator) ? std::round(octaves) : octaves));
      p.shape.k = std::llround(std::exp2(7 + 6 * u(generator)));
      p.footprint = Bytes(std::exp2(20 + 11 * u(generator)));
      p.input_footprint = Bytes(i % 2 == 0 ? std::exp2(18 + 13 * u(generator)) : 0);
      p.output_footprint = Bytes(i % 3 == 0 ? std::exp2(18 + 13 * u(generator)) : 0);
      asked.emplace_back(p, static_cast<float>(m));
      calls.m[i] = static_cast<float>(m);
      calls.n[i] = static_cast<float>(p.shape.n);
      calls.k[i] = static_cast<float>(p.shape.k);
      calls.footprint_bytes[i] = static_cast<float>(p.footprint.value());
      calls.input_footprint_bytes[i] = static_cast<float>(p.input_footprint.value());
      calls.output_footprint_bytes[i] = static_cast<float>(p.output_footprint.value());
    }
    lanes.cost(calls, kLanes, costs);
    for (std::size_t i = 0; i < kLanes; ++i) {
      const KernelCost exact = model->cost(asked[i].first, asked[i].second);
      errors.push_back(std::abs(std::log(static_cast<double>(costs.seconds[i]) / exact.latency.value())));
      EXPECT_NEAR(costs.memory_ratio[i], exact.memory_ratio, 1e-3);
      EXPECT_NEAR(costs.compute_ratio[i], exact.compute_ratio, 1e-3);
    }
  }
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() / 2], 0.001);
  EXPECT_LT(errors[errors.size() * 99 / 100], 0.006);
}

TEST(GemmLanes, AgreeWithTheCostModel) {
  const Calibration calibration = synthetic_calibration({"onednn", "openblas", "eigen"}, 200);
  for (const char* backend : {"onednn", "openblas", "eigen"}) expect_agreement(calibration, backend);
}

TEST(GemmLanes, AgreeWithTheCostModelWhereWeightsAreNotPacked) {
  Profile profile = synthetic_profile();
  profile.backends.front().packing = WeightPacking::none;
  const Calibration calibration = calibrate(profile, synthetic_gemms("onednn", DType::fp32, 1, 200, 1));
  ASSERT_EQ(calibration.gemms.front().law.traits().packing, WeightPacking::none);
  expect_agreement(calibration, "onednn");
}

TEST(GemmLanes, RoundRowsAsTheLawDoes) {
  Calibration calibration = synthetic_calibration({"onednn"}, 60);
  GemmCalibration& gemm = calibration.gemms.front();
  for (const auto& [rule, threads] : {std::pair{RowBucket::exact, 1},
                                      {RowBucket::exact, 2},
                                      {RowBucket::multiple4, 1},
                                      {RowBucket::tile16, 1},
                                      {RowBucket::tile16, 2}}) {
    gemm.law =
        GemmLaw(gemm_traits("onednn", DType::fp32, threads, rule, WeightPacking::ahead), gemm.law.log_parameters());
    gemm.residual = {};
    const GemmLanes lanes(gemm);
    GemmLanes::Calls calls{};
    GemmLanes::Costs costs{};
    constexpr std::array<float, kLanes> kRows{1,  1.5, 2,     3,   4.25, 5,   15.5, 16,
                                              17, 64,  127.5, 128, 129,  200, 1000, 2048};
    calls.m = kRows;
    calls.n.fill(704);  // 11 blocks: one too many for two threads
    calls.k.fill(512);
    calls.footprint_bytes.fill(1e7F);
    lanes.cost(calls, kLanes, costs);
    for (std::size_t i = 0; i < kLanes; ++i) {
      const double exact = std::exp(gemm.law.log_seconds({kRows[i], 704, 512, 1e7, 0}));
      EXPECT_NEAR(costs.seconds[i] / exact, 1, 1e-5) << kRows[i];
    }
  }
}

}  // namespace
}  // namespace moecast
