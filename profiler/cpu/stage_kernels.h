#pragma once
#include <cstddef>
#include <functional>

#include "hwprofiles/measurement.h"

namespace moecast {

/// An element-wise kernel ready to run: how much it reads and writes, and the call itself.
struct StageKernel {
  std::size_t input_bytes = 0;
  std::size_t output_bytes = 0;
  std::function<void(const std::byte* input, std::byte* output)> run;
};

/// @throws InputError for a kind that has no CPU stage.
StageKernel make_stage_kernel(const KernelPoint& point);

}  // namespace moecast
