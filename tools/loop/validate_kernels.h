#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "hwprofiles/kernel_samples.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "tools/loop/kernel_picks.h"
#include "tools/loop/strata.h"

namespace moecast {

/// A table of measured kernels to be predicted.
struct KernelValidation {
  std::string folder;               ///< of the profile
  std::vector<std::string> tables;  ///< files
  std::string layout;               ///< empty: from the file
  std::string framework;            ///< empty: from the file
  std::string version;
  /// Empty: the profile's calibration; a group of the law (shape, experts, inter, n, k, ranks, nodes); or machine.
  std::string leave_out;
  /// Folder of the sister machine's profile: needed for machine, may help ranks and nodes. Empty: none.
  std::string sister;
  int samples = 50;        ///< random rows a kernel that the machine left out is fitted to
  std::uint64_t seed = 1;  ///< of these rows
  std::function<void(double done)> progress;
};

struct KernelValidationReport {
  std::vector<Stratum> strata;  ///< "all" first
  TableReport table;
  std::map<std::string, std::int64_t> not_judged;  ///< rows outside all strata, by reason
  std::vector<std::string> notes;                  ///< substitutions of kernels
  PickReport picks;
};

/// Predicts every row of the table. With `leave_out`, each row by a model fitted to the table's other groups.
/// @throws InputError on a broken table or calibration, UsageError on an unknown group.
KernelValidationReport validate_kernels(const KernelValidation& request);

}  // namespace moecast
