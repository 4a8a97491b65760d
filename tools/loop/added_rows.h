#pragma once
#include <optional>
#include <vector>

#include "hwprofiles/kernel_samples.h"
#include "sim/accuracy/accuracy.h"
#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {

/// Rows that were added to a profile, as its calibration answers them.
struct AddedRows {
  KernelKey key;
  std::optional<ErrorSummary> before;  ///< nullopt: there was no calibration, or nothing of the kind in it
  std::optional<ErrorSummary> after;   ///< nullopt: nothing fits such a kernel
};

/// @param before  calibration without the rows; nullptr: there was none.
std::vector<AddedRows> compare_added_rows(const std::vector<KernelSamples>& added, const KernelCalibration* before,
                                          const KernelCalibration& after);

}  // namespace moecast
