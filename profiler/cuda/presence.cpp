#include "profiler/cuda/presence.h"

namespace moecast {

std::string cuda_version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::optional<GpuObstacle> gpu_obstacle(const GpuPresence& presence, int ordinal) {
  if (!presence.built) {
    return GpuObstacle{"this program was built without CUDA",
                       "install the CUDA Toolkit, put its nvcc on the PATH and build again with -DMOECAST_CUDA=ON"};
  }
  if (presence.driver == 0) {
    return GpuObstacle{"there is no NVIDIA driver",
                       "install it until nvidia-smi lists the GPU; a container needs the GPU passed to it"};
  }
  if (presence.driver / 1000 < presence.runtime / 1000) {
    return GpuObstacle{"the NVIDIA driver runs CUDA " + cuda_version_text(presence.driver) + ", this program needs " +
                           cuda_version_text(presence.runtime),
                       "update the driver, or build again with an older CUDA Toolkit"};
  }
  if (presence.devices.empty()) {
    const std::string words = presence.refusal.empty() ? "" : " (" + presence.refusal + ")";
    return GpuObstacle{"the NVIDIA driver shows no GPU" + words,
                       presence.visible.empty()
                           ? "see what nvidia-smi lists; a container needs the GPU passed to it"
                           : "CUDA_VISIBLE_DEVICES=" + presence.visible + " hides GPUs: unset it or name one"};
  }
  if (ordinal < 0 || ordinal >= static_cast<int>(presence.devices.size())) {
    return GpuObstacle{"there is no CUDA device " + std::to_string(ordinal),
                       "devices are numbered from 0 to " + std::to_string(presence.devices.size() - 1)};
  }
  return std::nullopt;
}

}  // namespace moecast
