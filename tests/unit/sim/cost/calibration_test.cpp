#include "sim/cost/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "models/core/error.h"

namespace moecast {
namespace {

Measurement timed(OperatorKind kind, const OperatorShape& shape, double seconds) {
  Measurement row;
  row.point.kind = kind;
  row.point.backend = kind == OperatorKind::gemm ? "onednn" : "native";
  row.point.shape = shape;
  row.point.footprint = Bytes(1e7);
  row.latency = row.low = row.high = Seconds(seconds);
  row.samples = 12;
  return row;
}

/// 150 GEMMs at 1 us + 2 m n k / 100 GF + 4 n k / 20 GB/s and 30 norms at 0.2 us + 1 ns an element, 1 % noise.
std::vector<Measurement> machine() {
  std::mt19937 generator(9);
  std::uniform_real_distribution<double> u(0, 1);
  std::normal_distribution<double> noise(0, 0.01);
  std::vector<Measurement> rows;
  for (int i = 0; i < 150; ++i) {
    OperatorShape s;
    s.m = std::llround(std::exp2(10 * u(generator)));
    s.n = 64 * std::llround(std::exp2(6 * u(generator)));
    s.k = 64 * std::llround(std::exp2(6 * u(generator)));
    const double n = static_cast<double>(s.n);
    const double k = static_cast<double>(s.k);
    const double t = 1e-6 + 2 * static_cast<double>(s.m) * n * k / 100e9 + 4 * n * k / 20e9;
    rows.push_back(timed(OperatorKind::gemm, s, t * std::exp(noise(generator))));
  }
  for (int i = 0; i < 30; ++i) {
    OperatorShape s;
    s.m = std::llround(std::exp2(10 * u(generator)));
    s.hidden = 64 * std::llround(std::exp2(5 * u(generator)));
    rows.push_back(
        timed(OperatorKind::norm, s, (2e-7 + 1e-9 * static_cast<double>(s.m * s.hidden)) * std::exp(noise(generator))));
  }
  return rows;
}

Profile machine_profile() {
  Profile profile;
  profile.name = "synthetic";
  return profile;
}

TEST(Calibrate, OfOneShapeNothingIsKnownOfTheNext) {
  std::vector<Measurement> rows;
  for (int m = 1; m <= 1024; m *= 2) {
    OperatorShape s;
    s.m = m;
    s.n = s.k = 512;
    rows.push_back(timed(OperatorKind::gemm, s, 1e-6 + 2e-11 * m * 512 * 512));
  }
  for (const double half_width : calibrate(machine_profile(), rows).gemms.front().half_width) {
    EXPECT_NEAR(half_width, std::log(2), 0.01) << "a factor of two; no row was left out";
  }
}

TEST(Calibrate, PredictsShapesThatWereNotMeasured) {
  const auto calibration = std::make_shared<const Calibration>(calibrate(machine_profile(), machine()));
  const auto model = make_cost_model(calibration);
  KernelPoint point;
  point.backend = "onednn";
  point.shape.m = 37;
  point.shape.n = 1000;
  point.shape.k = 700;
  point.footprint = Bytes(1e7);
  const double truth = 1e-6 + 2 * 37 * 7e5 / 100e9 + 4 * 7e5 / 20e9;
  const KernelCost cost = model->cost(point);
  EXPECT_NEAR(cost.latency.value() / truth, 1, 0.06);
  EXPECT_LT(cost.low, cost.latency);
  EXPECT_GT(cost.high, cost.latency);
  EXPECT_EQ(cost.origin, Origin::interpolated);
  EXPECT_LE(cost.memory_ratio + cost.compute_ratio, 1.0 + 1e-9);
}

TEST(Calibrate, WidensAndSaysSoFarOutside) {
  const auto model = make_cost_model(std::make_shared<const Calibration>(calibrate(machine_profile(), machine())));
  KernelPoint near;
  near.backend = "onednn";
  near.shape.m = 64;
  near.shape.n = near.shape.k = 512;
  near.footprint = Bytes(1e7);
  KernelPoint far = near;
  far.shape.m = std::int64_t{1} << 40;
  EXPECT_EQ(model->cost(far).origin, Origin::extrapolated);
  const KernelCost a = model->cost(near);
  const KernelCost b = model->cost(far);
  EXPECT_GE(b.high / b.latency, a.high / a.latency);
  EXPECT_GT(model->uncertainty(far), model->uncertainty(near));
}

TEST(Calibrate, StagesAreLinear) {
  const auto model = make_cost_model(std::make_shared<const Calibration>(calibrate(machine_profile(), machine())));
  KernelPoint point;
  point.kind = OperatorKind::norm;
  point.backend = "native";
  point.shape.m = 100;
  point.shape.hidden = 777;
  point.footprint = Bytes(1e7);
  EXPECT_NEAR(model->cost(point).latency.value(), 2e-7 + 1e-9 * 77700, 0.05 * 7.8e-5);
}

TEST(Calibrate, IsTheSameAfterItsText) {
  const Calibration made = calibrate(machine_profile(), machine());
  const std::string text = calibration_text(made);
  EXPECT_EQ(text, calibration_text(calibrate(machine_profile(), machine())));
  const Calibration read = parse_calibration_text(text, "calibration.json");
  EXPECT_EQ(calibration_text(read), text);
  const auto model = make_cost_model(std::make_shared<const Calibration>(made));
  const auto again = make_cost_model(std::make_shared<const Calibration>(read));
  for (const Measurement& row : machine()) {
    EXPECT_NEAR(model->cost(row.point).latency / again->cost(row.point).latency, 1, 1e-3);
  }
}

TEST(Calibrate, RefusesNothingToFitAndAnotherVersion) {
  EXPECT_THROW(calibrate(machine_profile(), {}), InputError);
  EXPECT_THROW(parse_calibration_text(R"({"schema_version": 7})", "c.json"), InputError);
}

TEST(CostModel, SaysWhatIsNotProfiled) {
  const auto model = make_cost_model(std::make_shared<const Calibration>(calibrate(machine_profile(), machine())));
  KernelPoint point;
  point.backend = "openblas";
  point.shape.m = point.shape.n = point.shape.k = 8;
  EXPECT_FALSE(model->knows(OperatorKind::gemm, "openblas", DType::fp32, 1));
  EXPECT_THROW(static_cast<void>(model->cost(point)), InputError);
}

}  // namespace
}  // namespace moecast
