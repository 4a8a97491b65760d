#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/core/error.h"
#include "models/core/statistics.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "sim/cost/kernel/kernel_fit.h"
#include "tests/support/allocation_count.h"
#include "tests/support/judged_kernels.h"
#include "tests/support/made_up_kernels.h"

namespace moecast {
namespace {

using test::fitted;
using test::grid_shapes;
using test::judge;
using test::Judged;
using test::made_up_device;
using test::MoeShape;
using test::tile_exact_moe;

const KernelModel& grid_model() {
  static const KernelModel model = fitted(tile_exact_moe(grid_shapes(), 0.01));
  return model;
}

TEST(KernelModel, AMeasuredCurveIsReturnedAsMeasured) {
  const KernelSamples samples = tile_exact_moe(grid_shapes(), 0.01);
  const Judged judged = judge(grid_model(), samples);
  EXPECT_LT(judged.median, 0.003);  // 8 bits of the residual of a curve
  EXPECT_GT(judged.coverage, 0.99);
}

TEST(KernelModel, ShapesBetweenTheGridKeepTheirInterval) {
  // Off the powers of two, inside the range of what was measured: what an architecture search asks for.
  const std::vector<MoeShape> between{
      {2560, 896, 6, 96}, {3584, 1280, 8, 144}, {5120, 1792, 6, 128}, {4608, 1664, 8, 192}};
  const Judged judged = judge(grid_model(), tile_exact_moe(between, 0.01, 8));
  EXPECT_LT(judged.median, 0.06);
  EXPECT_GE(judged.coverage, 0.86);
}

TEST(KernelModel, LeftOutShapesAreCoveredAndWithinReach) {
  const ErrorSummary& left_out = *grid_model().left_out;
  EXPECT_LT(left_out.median_ape, 0.08);
  EXPECT_GE(left_out.coverage_90_ratio, 0.80);
  EXPECT_LE(left_out.coverage_90_ratio, 0.97);
}

TEST(KernelModel, FarFromEverythingTheIntervalIsWiderAndTheOriginSaysSo) {
  RankLoadCache loads;
  CompiledKernel::Workspace workspace;
  const std::vector<double> near{64, 4096, 1536, 6, 128, 1, 1, 0, 3};
  const std::vector<double> far{64, 64, 32768, 1, 2048, 1, 1, 0, 3};
  const auto a = CompiledKernel(grid_model(), near, workspace).at({near}, loads);
  const auto b = CompiledKernel(grid_model(), far, workspace).at({far}, loads);
  EXPECT_GT(b.log_high - b.log_low, 1.5 * (a.log_high - a.log_low));
  EXPECT_EQ(b.origin, Origin::extrapolated);
  EXPECT_TRUE(std::isfinite(b.log_seconds));
  std::vector<double> beyond = near;
  beyond[0] = 1e6;
  EXPECT_EQ(CompiledKernel(grid_model(), beyond, workspace).at({beyond}, loads).origin, Origin::extrapolated);
}

TEST(KernelModel, AnyHistogramGoesIn) {
  // Half of the experts idle: half of the weights are read, so a memory-bound step is faster.
  RankLoadCache loads;
  CompiledKernel::Workspace workspace;
  const std::vector<double> row{256, 4096, 1536, 8, 128, 1, 1, 0, 3};
  const CompiledKernel compiled(grid_model(), row, workspace);
  const double all = compiled.at({row, RankLoad{2048, 128, 16}}, loads).log_seconds;
  const double half = compiled.at({row, RankLoad{2048, 64, 32}}, loads).log_seconds;
  EXPECT_LT(half, all - 0.3);
  EXPECT_NEAR(all, compiled.at({row}, loads).log_seconds, 1e-9);  // the balanced load is this one
}

TEST(KernelModel, TheHotLoopDoesNotAllocate) {
  if (MOECAST_COUNTS_ALLOCATIONS == 0) GTEST_SKIP() << "a sanitizer has its own allocator";
  RankLoadCache loads;
  CompiledKernel::Workspace workspace;
  const std::vector<double> row{256, 3584, 1280, 8, 128, 1, 1, 0, 3};
  const CompiledKernel warm(grid_model(), row, workspace);
  const long before = test::allocation_count();
  double sum = 0;
  for (int i = 1; i <= 100; ++i) {
    const CompiledKernel compiled(grid_model(), row, workspace);
    sum += compiled.at({row, RankLoad{8.0 * i, 64, 1.0 * i}}, loads).log_seconds;
  }
  EXPECT_EQ(test::allocation_count(), before);
  EXPECT_TRUE(std::isfinite(sum));
}

TEST(KernelFit, ABadCurveDoesNotBendItsNeighbours) {
  KernelSamples samples = tile_exact_moe(grid_shapes(), 0.01);
  const double before = judge(fitted(samples), tile_exact_moe({{2560, 896, 6, 96}}, 0.01, 8)).median;
  const auto curves = curves_of(samples);
  for (std::size_t i = 0; i < curves.size(); i += 15) {
    for (const std::size_t row : curves[i]) samples.latency_s[row] *= 5;  // an untuned tactic
  }
  const double after = judge(fitted(samples), tile_exact_moe({{2560, 896, 6, 96}}, 0.01, 8)).median;
  EXPECT_LT(after, before + 0.03);
}

TEST(KernelFit, AMachineIsCalibratedFromFiftyRowsByThePrior) {
  KernelSamples few = tile_exact_moe(grid_shapes(), 0.02);
  KernelSamples thin{few.key, std::vector<std::vector<double>>(few.columns.size()), {}};
  for (std::size_t row = 0; row < few.size(); row += few.size() / 50) {
    for (std::size_t c = 0; c < few.columns.size(); ++c) thin.columns[c].push_back(few.columns[c][row]);
    thin.latency_s.push_back(few.latency_s[row]);
  }
  EXPECT_LT(judge(fitted(thin), few).median, 0.12);
}

TEST(KernelCalibrationFile, ReturnsTheSameAnswers) {
  KernelCalibration calibration;
  calibration.profile = "made-up";
  calibration.device = made_up_device();
  calibration.kernels.push_back(grid_model());
  const std::string text = kernel_calibration_text(calibration);
  const KernelCalibration again = parse_kernel_calibration(text, "kernels.bin");
  RankLoadCache loads;
  CompiledKernel::Workspace workspace;
  for (const double hidden : {2048.0, 3584.0}) {
    const std::vector<double> row{64, hidden, 1024, 8, 64, 1, 1, 0, 3};
    const auto a = CompiledKernel(grid_model(), row, workspace).at({row}, loads);
    const auto b = CompiledKernel(again.kernels.front(), row, workspace).at({row}, loads);
    EXPECT_NEAR(a.log_seconds, b.log_seconds, 2e-3);
    EXPECT_NEAR(a.log_high, b.log_high, 5e-3);
  }
}

TEST(KernelCalibrationFile, EqualSamplesGiveEqualBytes) {
  const auto text = [] {
    KernelCalibration calibration;
    calibration.device = made_up_device();
    calibration.kernels.push_back(fitted(tile_exact_moe({{2048, 1024, 8, 64}, {4096, 1536, 8, 128}}, 0.01)));
    return kernel_calibration_text(calibration);
  };
  EXPECT_TRUE(text() == text());  // not EXPECT_EQ, which prints the files
}

TEST(KernelCalibrationFile, RefusesWhatIsDamaged) {
  KernelCalibration calibration;
  calibration.profile = "made-up";
  calibration.device = made_up_device();
  calibration.kernels.push_back(grid_model());
  const std::string text = kernel_calibration_text(calibration);
  EXPECT_THROW(parse_kernel_calibration(text.substr(0, text.size() - 1), "x"), InputError);
  EXPECT_THROW(parse_kernel_calibration(text + "x", "x"), InputError);
  EXPECT_THROW(parse_kernel_calibration("", "x"), InputError);
  EXPECT_THROW(parse_kernel_calibration("{}\n", "x"), InputError);
  std::string flipped = text;
  flipped[flipped.size() - 100] ^= 0x55;  // found when the kernel is first used
  EXPECT_THROW((void)parse_kernel_calibration(flipped, "x").kernels.front().arrays(), InputError);
  const std::size_t stretch = text.find("\"stretch\":[[");
  ASSERT_NE(stretch, std::string::npos);
  for (const char* ratio : {"-1", "0", "1e99"}) {
    std::string wrong = text;
    const std::size_t number = stretch + 12;
    wrong.replace(number, wrong.find(',', number) - number, ratio);
    EXPECT_THROW(parse_kernel_calibration(wrong, "x"), InputError) << ratio;
  }
  std::string other = text;
  other.replace(other.find("\"schema_version\":5"), 18, "\"schema_version\":9");
  EXPECT_THROW(parse_kernel_calibration(other, "x"), InputError);
}

TEST(KernelChoice, SaysWhatStandsForAKernelThatWasNotMeasured) {
  KernelCalibration calibration;
  calibration.kernels.push_back(grid_model());
  KernelKey key = grid_model().key;
  EXPECT_EQ(calibration.choose(key).substitution, "");
  EXPECT_EQ(calibration.choose(key).widening, 1);
  key.version = "2.0";
  EXPECT_EQ(calibration.choose(key).substitution, "version 1.0");
  // What stands for it was measured at this very configuration, which is no measurement of the wanted kernel.
  const KernelModel model = calibration.choose(key).stand_in(key, made_up_device());
  RankLoadCache loads;
  CompiledKernel::Workspace workspace;
  const std::vector<double> row{64, 2048, 1024, 8, 64, 1, 1, 0, 3};
  const auto own = CompiledKernel(grid_model(), row, workspace).at({row}, loads);
  const auto other = CompiledKernel(model, row, workspace).at({row}, loads);
  EXPECT_EQ(own.origin, Origin::interpolated);
  EXPECT_EQ(other.origin, Origin::fitted);
  EXPECT_NEAR(own.log_high - own.log_low, 0.08, 1e-9);
  const KernelModel measured = grid_model();
  const IntervalStratum stratum = measured.law->stratum(row);
  EXPECT_NEAR(other.log_high - other.log_low,
              1.25 * CompiledKernel(measured, row, workspace).sigma() *
                  (measured.scores.high_of(stratum) - measured.scores.low_of(stratum)),
              1e-9);
  key.framework = "sglang";
  EXPECT_GT(calibration.choose(key).widening, 1.25);
  key.layout = "gemm";
  EXPECT_EQ(calibration.choose(key).model, nullptr);
}

TEST(CalibrateKernels, LeavesOutUnknownFormatsAndCountsThem) {
  Profile profile;
  profile.name = "made-up";
  for (const auto& [name, value, unit] :
       {std::tuple("memory_bandwidth", 4.8e12, "B/s"), std::tuple("peak_bf16", 989e12, "FLOP/s"),
        std::tuple("l2_cache", 50e6, "B"), std::tuple("multiprocessors", 132.0, "1")}) {
    profile.quantities[name] = {value, unit, std::nullopt, std::nullopt, Origin::datasheet, "made up"};
  }
  KernelSamples known = tile_exact_moe({{2048, 1024, 8, 64}, {4096, 1536, 8, 128}}, 0.01);
  KernelSamples unknown = known;
  unknown.key.dtype = "fp3";
  const KernelCalibration calibration = calibrate_kernels(profile, {known, unknown});
  EXPECT_EQ(calibration.kernels.size(), 1);
  EXPECT_EQ(calibration.left_out.at("\"fp3\" is not a known format"), static_cast<std::int64_t>(unknown.size()));
  EXPECT_THROW(calibrate_kernels(profile, {unknown}), InputError);
  profile.quantities.erase("l2_cache");
  EXPECT_THROW(calibrate_kernels(profile, {known}), InputError);
}

TEST(RowFilter, KeepsOutWhatIsFasterThanTheDatasheetAllows) {
  KernelSamples samples = tile_exact_moe({{4096, 14336, 2, 8}}, 0);
  samples.latency_s.front() = 1e-9;
  RankLoadCache loads;
  const auto law = make_kernel_law(samples.key, made_up_device());
  const RowFilter filter = filter_rows(samples, *law, loads);
  EXPECT_EQ(filter.reasons[static_cast<std::size_t>(filter.reason.front())], "faster than the datasheet's peaks allow");
  EXPECT_EQ(std::count_if(filter.reason.begin(), filter.reason.end(), [](int r) { return r >= 0; }), 1);
}

}  // namespace
}  // namespace moecast
