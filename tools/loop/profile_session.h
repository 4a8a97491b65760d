#pragma once
#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hwprofiles/profile.h"
#include "profiler/cpu/plan.h"
#include "sim/cost/calibration.h"
#include "tools/loop/grouped_check.h"

namespace moecast {

struct ProfileRequest {
  std::string folder;  ///< where the finished profile goes; FOLDER.partial holds what an unfinished run measured
  std::string name;
  std::vector<KernelSetting> combinations;
  Seconds budget{90};  ///< of measuring; building primitives and fitting come on top
  int rounds = 3;
  bool fresh = false;  ///< forget an unfinished run
  const std::atomic<bool>* interrupted = nullptr;
  /// "spread", "least sure", "repeats": what is measured, of all of the budget.
  std::function<void(const std::string& stage, double done_ratio, Seconds left)> progress;
};

struct ProfileOutcome {
  Profile profile;
  Calibration calibration;
  std::size_t points = 0;
  std::size_t resumed = 0;            ///< taken over from an unfinished run
  std::size_t least_sure = 0;         ///< points that the calibration asked for
  std::optional<double> noise_floor;  ///< median |a / b - 1| of points measured again in a run of their own
  double precision = 0;               ///< median half width of a point's interval, a ratio
  std::vector<GroupedCheck> grouped;
  int preempted = 0;
  bool complete = true;  ///< false: interrupted, kept in FOLDER.partial
};

/// Measures a spread of points beside a few layers, asks the calibration where it is least sure, measures there,
/// repeats some points in a separate run, and writes the profile with its calibration.
/// @throws DeviceError, UsageError as the kernels do.
ProfileOutcome profile_machine(const ProfileRequest& request);

}  // namespace moecast
