#pragma once
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/backend_rules.h"
#include "hwprofiles/kernel_samples.h"
#include "hwprofiles/profile.h"
#include "sim/cost/kernel/kernel_model.h"

namespace moecast {

inline constexpr int kKernelCalibrationVersion = 5;
inline constexpr std::string_view kKernelCalibrationFile = "kernels.bin";

/// Every calibrated kernel of one machine. Immutable after loading; safe to share between threads.
struct KernelCalibration {
  std::string profile;
  DeviceLimits device;
  std::vector<KernelModel> kernels;              ///< sorted by key
  std::map<std::string, std::int64_t> left_out;  ///< rows that no fit saw, by reason
  std::vector<BackendRules> backends;            ///< which kernels frameworks pick; beside the calibration, not in it
  std::vector<std::string> choices;              ///< what the calibration chose by itself, and why; not stored

  /// How the kernel for a key was found.
  struct Choice {
    const KernelModel* model = nullptr;  ///< nullptr: nothing of this layout
    std::string substitution;            ///< empty: the very kernel; else what stands for it, and why
    double widening = 1;                 ///< factor on the interval's half widths

    /// The model as one of `key`: with the law of its format, the wider interval, and no curve of its own.
    [[nodiscard]] KernelModel stand_in(const KernelKey& key, const DeviceLimits& device) const;
  };
  /// The kernel itself; else its nearest relative: another version, another kernel of the framework and format, another
  /// framework, another format (scaled by the law).
  [[nodiscard]] Choice choose(const KernelKey& key) const;
};

/// A kernel with fewer rows than this is fitted beside its sister machine's, where one is given.
inline constexpr std::size_t kFewRows = 400;

/// Fits every kernel whose law is known, on all cores. Deterministic.
/// @param progress  called with done and all; may be empty. Any thread, one at a time.
/// @param sister  calibration of a machine of the same generation; may be null. Kernels with few rows carry its
/// residuals over where cross-validation gains, kernels without a row are its physics on this datasheet with three
/// times its interval.
/// @param backends  of the profile's folder: tiles that frameworks have tuned.
/// @throws InputError when there is no sample, or the profile lacks a datasheet value.
KernelCalibration calibrate_kernels(const Profile& profile, const std::vector<KernelSamples>& samples,
                                    const std::function<void(std::size_t, std::size_t)>& progress = {},
                                    const KernelCalibration* sister = nullptr,
                                    const std::vector<BackendRules>& backends = {});
/// The same kernel of another machine, whatever its version; nullptr where it has none.
const KernelModel* find_sister_kernel(const KernelCalibration& sister, const KernelKey& key);

/// kernels.bin: a line of JSON, then one zlib stream a kernel with its arrays (little endian), unpacked when the kernel
/// is first used. Equal calibrations give equal bytes.
std::string kernel_calibration_text(const KernelCalibration& calibration);
/// @throws InputError on anything that is not such a file: cut short, other version, sizes that do not fit, values that
/// are not finite.
KernelCalibration parse_kernel_calibration(std::string_view text, const std::string& where);
/// FOLDER/kernels.bin and FOLDER/backends/*.json. @throws InputError as above, or when it belongs to another profile.
KernelCalibration read_kernel_calibration(const std::string& folder, const std::string& profile);

}  // namespace moecast
