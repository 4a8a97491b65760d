#pragma once
#include <optional>
#include <string>
#include <vector>

namespace moecast {

/// What there is of CUDA: in this program, and on this machine.
struct GpuPresence {
  bool built = false;                ///< this program was built with CUDA
  int runtime = 0;                   ///< CUDA version of this program, 13000 = 13.0
  int driver = 0;                    ///< newest CUDA version that the driver runs; 0 = no driver
  std::string refusal;               ///< the runtime's words when it finds no device
  std::string visible;               ///< CUDA_VISIBLE_DEVICES; empty = not set
  std::vector<std::string> devices;  ///< names, by ordinal
};

/// Looks without taking memory of a device.
GpuPresence look_for_gpu();

/// What stands between this program and a GPU, and how to mend it.
struct GpuObstacle {
  std::string problem;
  std::string advice;
};

/// nullopt when device `ordinal` can be opened.
std::optional<GpuObstacle> gpu_obstacle(const GpuPresence& presence, int ordinal);

/// "13.0" of 13000.
std::string cuda_version_text(int version);

}  // namespace moecast
