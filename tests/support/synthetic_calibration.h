#pragma once
#include <Eigen/Cholesky>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "sim/cost/calibration.h"

namespace moecast {

inline Profile synthetic_profile() {
  Profile profile;
  profile.name = "synthetic";
  profile.device = "cpu";
  const auto add = [&](const char* name, DType dtype, RowBucket rows, WeightPacking packing) {
    profile.backends.push_back({name, dtype, "", "", rows, packing});
  };
  add("onednn", DType::fp32, RowBucket::exact, WeightPacking::ahead);
  add("onednn", DType::bf16, RowBucket::tile16, WeightPacking::ahead);
  add("openblas", DType::fp32, RowBucket::multiple4, WeightPacking::unless_small);
  add("eigen", DType::fp32, RowBucket::exact, WeightPacking::every_call);
  return profile;
}

/// The law that the made-up machine's GEMMs follow: 1 us a call, 150 GFLOP/s, bandwidth falling from 120 to 12 GB/s
/// over the footprints.
inline GemmLaw synthetic_law(const std::string& backend, DType dtype, int threads) {
  GemmTraits traits = gemm_traits(backend, dtype, threads, RowBucket::exact, WeightPacking::ahead);
  for (const ProfileBackend& b : synthetic_profile().backends) {
    if (b.name == backend && b.dtype == dtype) traits = gemm_traits(backend, dtype, threads, b.row_bucket, b.packing);
  }
  Eigen::VectorXd p(GemmLaw::kParameters);
  p.head(GemmLaw::kScalars) << 1e-6, 150e9, 1, 4, 4, 1.1, 1, 0.5, 3, 3, 1000, 2e6, 12e9, 1, 1, 40, 0.25, 0.7;
  for (int i = 0; i < GemmLaw::kNodes; ++i) {
    p(GemmLaw::kScalars + i) = 200e9 / (1 + std::pow(GemmLaw::kNodeBytes[static_cast<std::size_t>(i)] / 2e6, 0.4));
  }
  return {traits, p.array().log().matrix()};
}

/// GEMMs of the made-up machine at `points` random shapes of the profiler's ranges: its law, +-10 % of waves over the
/// shapes, 1.5 % noise.
inline std::vector<Measurement> synthetic_gemms(const std::string& backend, DType dtype, int threads, int points,
                                                unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> u(0, 1);
  std::normal_distribution<double> noise(0, 0.015);
  const GemmLaw law = synthetic_law(backend, dtype, threads);
  std::vector<Measurement> rows;
  for (int i = 0; i < points; ++i) {
    Measurement row;
    KernelPoint& point = row.point;
    point.backend = backend;
    point.dtype = dtype;
    point.threads = threads;
    const bool router = i % 6 == 0;
    const double m = std::round(std::exp2(11 * u(generator)));
    const double n =
        router ? std::round(std::exp2(2 + 4 * u(generator))) : 32 * std::round(std::exp2(2 + 7 * u(generator)));
    const double k = 32 * std::round(std::exp2(2 + 6 * u(generator)));
    const double bytes = n * k * bytes_per_element(dtype);
    const double footprint = bytes * std::pow(std::max(1.0, 1.9e9 / bytes), u(generator));
    point.shape.m = std::llround(m);
    point.shape.n = std::llround(n);
    point.shape.k = std::llround(k);
    point.footprint = Bytes(footprint);
    point.input_footprint = Bytes(i % 2 == 0 ? footprint : 0);
    const double padded = static_cast<double>(row_bucket(law.traits().row_bucket, point.shape.m));
    const double wave = 0.1 * std::sin(std::log2(padded) + 0.7 * std::log2(n)) * std::cos(0.8 * std::log2(k) + 1);
    const double t = std::exp(law.log_seconds({m, n, k, footprint, point.input_footprint.value(), 0}));
    row.latency = row.low = row.high = Seconds(t * std::exp(wave + noise(generator)));
    row.samples = 12;
    rows.push_back(row);
  }
  return rows;
}

/// Stages of the same machine: 0.3 us a call, 0.2 ns an element, 10 GB/s; 5 % noise.
inline std::vector<Measurement> synthetic_stages(DType dtype, int threads, int points, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> u(0, 1);
  std::normal_distribution<double> noise(0, 0.05);
  std::vector<Measurement> rows;
  for (const OperatorKind kind :
       {OperatorKind::router, OperatorKind::permute, OperatorKind::unpermute, OperatorKind::activation,
        OperatorKind::norm, OperatorKind::elementwise, OperatorKind::copy, OperatorKind::attention_prefill,
        OperatorKind::attention_decode}) {
    for (int i = 0; i < points; ++i) {
      Measurement row;
      row.point.kind = kind;
      row.point.backend = "native";
      row.point.dtype = dtype;
      row.point.threads = threads;
      OperatorShape& s = row.point.shape;
      for (const ShapeColumn& column : shape_columns(kind))
        s.*column.field = std::llround(std::exp2(1 + 7 * u(generator)));
      if (kind == OperatorKind::router) s.groups = 1;
      if (kind == OperatorKind::router) s.experts = std::max(s.experts, s.top_k);
      if (kind == OperatorKind::activation) s.gated = i % 2;
      if (kind == OperatorKind::attention_decode) s.query = 1;
      if (kind == OperatorKind::attention_prefill) s.context = std::max(s.context, s.query);
      row.point.footprint = Bytes(std::exp2(18 + 10 * u(generator)));
      const double bytes = stage_bytes(row.point).value();
      const double t = 3e-7 + bytes / 8 * 2e-10 + stage_flops(row.point).value() / 50e9 + bytes / 10e9;
      row.latency = row.low = row.high = Seconds(t * std::exp(noise(generator)));
      row.samples = 12;
      rows.push_back(row);
    }
  }
  return rows;
}

/// A calibration of the made-up machine on one thread, as large as those of real profiles get.
inline Calibration synthetic_calibration(const std::vector<std::string>& backends, int points,
                                         const std::vector<DType>& dtypes = {DType::fp32}) {
  std::vector<Measurement> rows;
  for (const DType dtype : dtypes) {
    const auto stages = synthetic_stages(dtype, 1, 40, 3);
    rows.insert(rows.end(), stages.begin(), stages.end());
  }
  for (const std::string& backend : backends) {
    for (const DType dtype : dtypes) {
      const auto gemms = synthetic_gemms(backend, dtype, 1, points, 7);
      rows.insert(rows.end(), gemms.begin(), gemms.end());
    }
  }
  return calibrate(synthetic_profile(), rows);
}

}  // namespace moecast
