#pragma once
#include <string>
#include <vector>

#include "hwprofiles/measurement.h"
#include "sim/cost/calibration.h"

namespace moecast {

/// How far experts over ragged histograms lie from the sum of their kernels, for one (backend, dtype, threads). These
/// points are in no fit.
struct GroupedCheck {
  std::string backend;
  DType dtype = DType::fp32;
  int threads = 1;
  std::size_t points = 0;
  double median_ape = 0;
};

std::vector<GroupedCheck> check_grouped(const Calibration& calibration, const std::vector<Measurement>& measurements);

}  // namespace moecast
