#include "models/core/error.h"
#include "profiler/cuda/device.h"

#ifndef MOECAST_HAS_CUDA
namespace moecast {
namespace {

[[noreturn]] void refuse() {
  throw DeviceError("", "this program was built without CUDA",
                    "configure again with nvcc on the PATH and -DMOECAST_CUDA=ON");
}

}  // namespace

std::unique_ptr<GpuDevice> open_gpu(int /*ordinal*/, Bytes /*arena*/) { refuse(); }
LaunchCosts measure_launch_costs() { refuse(); }
bool built_with_cuda() { return false; }

}  // namespace moecast
#endif
