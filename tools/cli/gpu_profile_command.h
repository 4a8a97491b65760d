#pragma once
#include <string>

namespace moecast {

/// What `profile --device cuda` was asked, as typed.
struct GpuProfileOptions {
  std::string device = "cuda";  ///< cuda, gpu, or cuda:N
  std::string budget = "4min";
  std::string dtype;  ///< empty = every one of the plan
  std::string name;
  std::string out;
  std::string format = "table";
  bool fresh = false;
};

/// True if --device means a GPU.
bool is_gpu_device(const std::string& device);

/// Measures a GPU and writes its profile. @return the exit code.
/// @throws UsageError on a wrong flag; DeviceError that names what is missing: toolkit, driver, device, memory.
int run_gpu_profile(const GpuProfileOptions& options);

}  // namespace moecast
