#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "hwprofiles/measurement.h"

namespace moecast {

/// One (backend, dtype, threads) to be profiled.
struct KernelSetting {
  std::string backend;
  DType dtype = DType::fp32;
  int threads = 1;
  friend bool operator==(const KernelSetting&, const KernelSetting&) = default;
};

struct PlanOptions {
  std::vector<KernelSetting> combinations;
  int bandwidth_points = 32;  ///< of the bandwidth curve, a combination
  int gemm_points = 150;      ///< spread over the shapes, a combination
  int router_points = 16;     ///< narrow GEMMs, a combination
  int stage_points = 24;      ///< a stage and (dtype, threads)
  int grouped_points = 5;     ///< feed-forward networks of all experts over a ragged histogram, a combination
  std::vector<double> cache_bytes{32e3, 512e3, 8e6};  ///< of each level, for one CPU: read and copied from half of it
  double most_flops = 6e9;                            ///< of one call
  double most_ring_bytes = 1.9e9;
  double cache_reach_bytes = 150e6;  ///< larger loops find nothing in a cache; see settle.h
};

/// Points to measure first: the bandwidth curve (few rows over rings from one copy to cold), low-discrepancy points in
/// the logarithms of (m, n, k, footprint) with a quarter at powers of two, narrow router GEMMs, and every element-wise
/// stage and attention core. Beside these, which calibrate: read and copy bandwidth of every cache level and of memory,
/// the smallest call, and experts over ragged histograms, which check. Ranges: m 1-1450, n 128-16384, k 128-8192 (steps
/// of 32), routers n 4-64.
std::vector<KernelPoint> initial_points(const PlanOptions& options);

/// Which of the points no calibration can do without, however slow the machine turns out to be: what stands for itself
/// (bandwidth of a cache level, the smallest call) and the first few of every kind, backend, dtype and thread count.
std::vector<bool> indispensable_points(const std::vector<KernelPoint>& points);

/// A dense pool of GEMMs of the same ranges from which adaptive profiling chooses. Another `seed`, other points.
std::vector<KernelPoint> candidate_points(const PlanOptions& options, std::uint64_t seed, int count);

}  // namespace moecast
