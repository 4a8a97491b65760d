#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tools/loop/validation.h"

namespace moecast {

struct ValidateRequest {
  std::string folder;  ///< of a profile of this machine, with samples and calibration
  int cases = 40;
  std::uint64_t seed = 1;
  /// Instead of drawn cases: this model (or layer) for each of these numbers of tokens, one a sequence.
  std::optional<Architecture> model;
  std::string configurations;  ///< or those of this file (configuration_file.h)
  std::vector<std::int64_t> tokens;
  std::int64_t context = 0;  ///< earlier tokens of each sequence, for models with attention
  int rounds = 4;
  std::vector<KernelSetting> only;  ///< empty: everything that was profiled
  /// true: the profile's kernels are timed again in the same rounds as the layers and the calibration is made from
  /// them, so that the error is the model's. false: the stored calibration answers, and drift since then counts.
  bool interleaved = true;
  const std::atomic<bool>* interrupted = nullptr;
  std::function<void(const std::string& stage, double done_ratio, Seconds left)> progress;
};

struct ValidateOutcome {
  ValidationReport report;
  std::size_t kernels = 0;  ///< timed beside the layers
  bool complete = true;     ///< false: interrupted
};

/// (backend, dtype, threads) of the GEMMs among the samples, in file order.
std::vector<KernelSetting> profiled_combinations(const std::vector<Measurement>& samples);

/// Draws layers and models that were not profiled (or takes the one that is asked for), executes and predicts each.
/// @throws InputError when the profile has no samples, or none of `only`; DeviceError as the kernels do.
ValidateOutcome validate_machine(const ValidateRequest& request);

}  // namespace moecast
