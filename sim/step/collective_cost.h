#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {

inline constexpr double kActivationBytes = 2;  ///< of an element

/// A collective of a library on some ranks, for any size.
struct CollectiveCost {
  std::string kernel;                                ///< key of what was measured; "physics" where nothing was
  std::function<double(double elements)> seconds{};  ///< of the whole buffer of a rank: an all-gather's output, the
                                                     ///< input of the others, what one rank sends point to point
  std::function<CompiledKernel::Answer(double elements)> answer{};  ///< with its interval; empty: nothing was measured
};

/// Whether a rank of a pipeline stage of so many neighbours has its like of the next stage on another node of
/// `node_devices`.
bool stage_crosses_nodes(std::int64_t stage, std::int64_t ranks, std::int64_t node_devices);

/// NCCL's collective from the machine's tables (all_reduce, all_gather, reduce_scatter, alltoall), or point_to_point,
/// for which an all-to-all of two ranks stands: it is a send and a receive of half its buffer each. Without a table:
/// bytes over the link of the datasheet, or over 25 GB/s (NIC: 50 GB/s) where it knows none.
/// @param ranks  at least 2; 2 for point_to_point. @param nodes  that the ranks lie on.
CollectiveCost collective_cost(const KernelCalibration& calibration, std::string_view operation, int ranks,
                               double nodes);

/// Whether the machine's tables hold an all-reduce of the framework's own.
bool has_all_reduce(const KernelCalibration& calibration, std::string_view framework, int ranks);

/// The all-reduce that an engine has of its own inside a node, from the machine's tables; NCCL's where they hold none.
CollectiveCost engine_all_reduce_cost(const KernelCalibration& calibration, std::string_view framework,
                                      std::string_view version, int ranks);

}  // namespace moecast
