#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "models/plan/engine.h"
#include "sim/cost/kernel/ready_kernel.h"

namespace moecast {

/// A linear layer with the kernel that an engine runs, for any number of rows.
struct LinearLayer {
  std::string kernel;  ///< key and what it stands for; "physics" where nothing was measured
  std::function<double(double rows)> seconds;
  ReadyKernel known;     ///< the best one; nullptr: physics
  KernelRowValues row;   ///< its configuration, at one row
  bool in_bf16 = false;  ///< a kernel in bf16 stands for one in the format that was asked for
};

/// Whose linear layers.
struct LinearLayerEngine {
  std::string framework, version;
  Fp8Inputs fp8_inputs = Fp8Inputs::as_measured;
};

/// @param n  columns. @param k  depth. @param wanted  format of the weights.
LinearLayer find_linear_layer(const KernelCalibration& calibration, const LinearLayerEngine& engine, std::int64_t n,
                              std::int64_t k, DType wanted);

}  // namespace moecast
