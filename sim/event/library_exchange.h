#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "hwprofiles/cluster.h"
#include "models/core/origin.h"
#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {

/// What a library takes for a collective, by the calibrated law of (operation, library, ranks, nodes).
struct LibraryCost {
  std::string kernel;  ///< key of the calibrated kernel, and what it stands for
  double seconds = 0;  ///< of this message size
  double low_s = 0;    ///< of a 90 % interval
  double high_s = 0;
  double start_s = 0;  ///< of a message of next to nothing
  Origin origin = Origin::assumed;
};

/// NCCL's all-to-all, all-gather, reduce-scatter, all-reduce or send (first to last rank) on the links of a topology.
/// @param bytes  as `moecast exchange` counts them: a rank's whole buffer, or one message.
/// @return nullopt for another operation, a single rank, no bytes, or where the machine's tables hold no such
/// collective.
std::optional<LibraryCost> library_cost(const KernelCalibration& calibration, const Topology& topology,
                                        std::string_view operation, double bytes);

}  // namespace moecast
