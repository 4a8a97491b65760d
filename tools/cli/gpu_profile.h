#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "hwprofiles/profile.h"
#include "profiler/cuda/device.h"

namespace moecast {

struct GpuProfileRequest {
  std::string folder;  ///< where the finished profile goes; FOLDER.partial holds what an unfinished run measured
  std::string name;    ///< empty = after the GPU
  std::vector<KernelPoint> points;
  std::map<std::string, std::string> environment;  ///< what timings depend on besides what the device says
  Seconds budget{240};
  int rounds = 12;
  bool fresh = false;  ///< forget an unfinished run
  const std::atomic<bool>* interrupted = nullptr;
  std::function<double()> clock;  ///< seconds; the steady clock when empty
  std::function<void(const std::string& stage, double done_ratio, Seconds left)> progress;
};

struct GpuProfileOutcome {
  Profile profile;
  std::size_t points = 0;   ///< measured, resumed ones among them
  std::size_t resumed = 0;  ///< taken over from an unfinished run
  double precision = 0;     ///< median half width of a point's interval, a ratio
  bool complete = true;     ///< false: interrupted, kept in FOLDER.partial
};

/// Measures the points and writes profile.json and samples/ as a whole; a profile that FOLDER held stays until then.
/// It has no calibration: measured kernels of our own are not fitted yet, imported tables are (kernel_calibration.h).
///
/// @param launch  nullptr when not measured.
/// @throws DeviceError when nothing could be measured or written; InputError when FOLDER.partial is of another device.
GpuProfileOutcome profile_gpu(GpuDevice& device, const LaunchCosts* launch, const GpuProfileRequest& request);

}  // namespace moecast
