#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>

#include "hwprofiles/profile.h"
#include "models/core/statistics.h"
#include "sim/cost/calibration.h"
#include "sim/cost/cost_model.h"
#include "sim/cost/stage_law.h"

namespace moecast {
namespace {

constexpr const char* kXeon = MOECAST_SOURCE_DIR "/hwprofiles/intel-xeon-processor-2cpu";

bool is_router_gemm(const KernelPoint& p) { return p.kind == OperatorKind::gemm && p.shape.n <= 64; }

/// Median error at every second narrow GEMM, of laws that saw the others.
double left_out_error(const std::string& folder) {
  std::vector<Measurement> seen;
  std::vector<Measurement> left_out;
  int number = 0;
  for (const Measurement& row : read_samples(folder)) {
    if (row.point.threads != 1 || row.point.dtype != DType::fp32 || row.point.backend == "eigen") continue;
    (is_router_gemm(row.point) && number++ % 2 == 1 ? left_out : seen).push_back(row);
  }
  EXPECT_GE(left_out.size(), 8U);
  const auto model = make_cost_model(std::make_shared<const Calibration>(calibrate(read_profile(folder), seen)));
  std::vector<double> errors;
  for (const Measurement& row : left_out) {
    errors.push_back(std::abs(model->cost(row.point).latency / row.latency - 1));
  }
  return median(errors);
}

TEST(RouterMicrobench, TopKIsPredictedWithinFifteenPercent_A7) {
  std::vector<Measurement> rows;
  for (const Measurement& row : read_samples(kXeon)) {
    const KernelPoint& p = row.point;
    if (p.kind == OperatorKind::router && p.threads == 1 && p.dtype == DType::fp32) rows.push_back(row);
  }
  ASSERT_GE(rows.size(), 10U);
  std::vector<double> errors;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::vector<Measurement> others = rows;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
    errors.push_back(std::abs(StageLaw::fit(others).seconds(rows[i].point) / rows[i].latency - 1));
  }
  EXPECT_LT(median(errors), 0.15);
}

TEST(RouterMicrobench, NarrowGemmsArePredictedWithinFifteenPercent_A7) { EXPECT_LT(left_out_error(kXeon), 0.15); }

}  // namespace
}  // namespace moecast
