#include "models/core/error.h"
#include "profiler/cuda/device.h"
#include "profiler/cuda/presence.h"

#ifndef MOECAST_HAS_CUDA
namespace moecast {
namespace {

[[noreturn]] void refuse() {
  const auto obstacle = gpu_obstacle({}, 0);
  throw DeviceError("", obstacle->problem, obstacle->advice);
}

}  // namespace

GpuPresence look_for_gpu() { return {}; }
std::unique_ptr<GpuDevice> open_gpu(int /*ordinal*/, Bytes /*arena*/) { refuse(); }
LaunchCosts measure_launch_costs() { refuse(); }

}  // namespace moecast
#endif
