#include "sim/cost/kernel/few_samples.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/core/statistics.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "sim/cost/kernel/kernel_fit.h"
#include "tests/support/judged_kernels.h"
#include "tests/support/made_up_kernels.h"

namespace moecast {
namespace {

using test::fitted;
using test::grid_shapes;
using test::Judged;
using test::made_up_device;
using test::tile_exact_moe;

Judged judge(const KernelModel& model, const KernelSamples& truth, double tp, double ep, double alpha) {
  return test::judge(model, truth,
                     [&](const std::vector<double>& row) { return row[5] == tp && row[6] == ep && row[7] == alpha; });
}

/// A shape whose kernel was compiled with a bad tile: 1.4 times as slow as the others say.
KernelSamples odd_shape() {
  KernelSamples odd = tile_exact_moe({{2560, 896, 6, 96}}, 0.01, 8);
  for (double& latency : odd.latency_s) latency *= 1.4;
  return odd;
}

KernelSamples grid_and_points(const std::vector<double>& tokens) {
  const KernelSamples odd = odd_shape();
  KernelSamples points{odd.key, std::vector<std::vector<double>>(odd.columns.size()), {}};
  for (std::size_t i = 0; i < odd.size(); ++i) {
    const bool asked = std::find(tokens.begin(), tokens.end(), odd.columns[0][i]) != tokens.end();
    if (!asked || odd.columns[5][i] != 2 || odd.columns[6][i] != 1 || odd.columns[7][i] != 0) continue;
    for (std::size_t c = 0; c < points.columns.size(); ++c) points.columns[c].push_back(odd.columns[c][i]);
    points.latency_s.push_back(odd.latency_s[i]);
  }
  std::vector<KernelSamples> merged{tile_exact_moe(grid_shapes(), 0.01)};
  merge_kernel_samples(merged, {points});
  return merged.front();
}

TEST(FewSamples, ThreeTokenCountsRefineTheirConfiguration) {
  const double before = judge(fitted(tile_exact_moe(grid_shapes(), 0.01)), odd_shape(), 2, 1, 0).median;
  const KernelModel model = fitted(grid_and_points({8, 256, 4096}));
  ASSERT_EQ(model.short_curve_shares.size(), 1U);
  const Judged after = judge(model, odd_shape(), 2, 1, 0);
  EXPECT_GT(before, 0.25);  // nothing of the grid says that it is slow
  EXPECT_LT(after.median, 0.06);
  EXPECT_GE(after.coverage, 0.85);
}

TEST(FewSamples, OtherConfigurationsKeepTheirAnswer) {
  const KernelModel plain = fitted(tile_exact_moe(grid_shapes(), 0.01));
  const KernelModel refined = fitted(grid_and_points({8, 256, 4096}));
  const KernelSamples elsewhere = tile_exact_moe({{4096, 1792, 8, 128}}, 0.01, 9);
  EXPECT_NEAR(judge(plain, elsewhere, 1, 1, 0).median, judge(refined, elsewhere, 1, 1, 0).median, 1e-9);
}

TEST(FewSamples, ASisterMachineCarriesItsResidualOverWhereItHelps) {
  // The sister has the same surface and 0.7 of the speed; the machine itself was measured at 60 rows.
  KernelSamples known = tile_exact_moe(grid_shapes(), 0.01);
  for (double& latency : known.latency_s) latency /= 0.7;
  const KernelModel sister = fitted(known);
  const KernelSamples truth = tile_exact_moe(grid_shapes(), 0.01, 9);
  KernelSamples few{truth.key, std::vector<std::vector<double>>(truth.columns.size()), {}};
  for (std::size_t i = 0; i < truth.size(); i += truth.size() / 60) {
    for (std::size_t c = 0; c < few.columns.size(); ++c) few.columns[c].push_back(truth.columns[c][i]);
    few.latency_s.push_back(truth.latency_s[i]);
  }
  RankLoadCache loads;
  const SisterFit fit = fit_with_sister(few, make_kernel_law(truth.key, made_up_device()), sister, loads);
  EXPECT_EQ(fit.carried_ratio, 0.9);
  EXPECT_LT(fit.error_with, fit.error_without);
  EXPECT_LT(judge(fit.model, truth, 1, 1, 0).median, 0.04);
}

TEST(FewSamples, AMachineWithoutARowInheritsItsSistersKernels) {
  Profile profile;
  profile.name = "next-year";
  for (const auto& [name, value, unit] :
       {std::tuple("memory_bandwidth", 9.6e12, "B/s"), std::tuple("peak_bf16", 1978e12, "FLOP/s"),
        std::tuple("l2_cache", 50e6, "B"), std::tuple("multiprocessors", 132.0, "1")}) {
    profile.quantities[name] = {value, unit, std::nullopt, std::nullopt, Origin::datasheet, "made up"};
  }
  KernelCalibration sister;
  sister.profile = "this-year";
  sister.device = made_up_device();
  sister.kernels.push_back(fitted(tile_exact_moe(grid_shapes(), 0.01)));
  const KernelCalibration heir = calibrate_kernels(profile, {}, {}, &sister);
  ASSERT_EQ(heir.kernels.size(), 1U);
  EXPECT_TRUE(heir.kernels.front().inherited);
  // Twice the bandwidth and twice the peak: a large step takes nearly half of the time, and its interval is wider.
  const std::vector<double> row{4096, 4096, 14336, 2, 8, 1, 1, 0, 3};
  RankLoadCache loads;
  CompiledKernel::Workspace workspace;
  const auto old_answer = CompiledKernel(sister.kernels.front(), row, workspace).at({row}, loads);
  const auto new_answer = CompiledKernel(heir.kernels.front(), row, workspace).at({row}, loads);
  EXPECT_NEAR(std::exp(new_answer.log_seconds - old_answer.log_seconds), 0.5, 0.05);
  EXPECT_GT(new_answer.log_high - new_answer.log_low, old_answer.log_high - old_answer.log_low);
}

}  // namespace
}  // namespace moecast
