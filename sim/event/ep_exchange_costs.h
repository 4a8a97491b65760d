#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sim/cost/kernel/ready_kernel.h"
#include "sim/event/ep_costs.h"

namespace moecast {

/// What a layer's costs are made from, and what is made of them so far.
class EpCostParts {
 public:
  EpCostParts(std::shared_ptr<const KernelCalibration> calibration, const EpLayer& layer, const Topology& measured);

  [[nodiscard]] double ranks() const { return topology.ranks(); }
  /// nullptr where there is none; a collective's kernel on the links that are asked about.
  [[nodiscard]] ReadyKernel find(const KernelWanted& wanted, const KernelRowValues& row) const;
  [[noreturn]] void missing(std::string_view what) const;
  /// Notes what a stage was predicted from. @param factor  on the answer's seconds. @param stands_in  a kernel of
  /// another format.
  void add_piece(std::string_view stage, const ReadyKernelData& kernel, const CompiledKernel::Answer& answer,
                 double factor = 1, bool stands_in = false);

  std::shared_ptr<const KernelCalibration> calibration;
  const EpLayer& layer;
  const Topology& topology;
  DeviceLimits device;    ///< with the topology's links
  std::string framework;  ///< whose kernels
  EpCosts result;
};

/// Dispatch and combine, and what travels.
/// @throws InputError where the profile holds no kernel of the method, or the cluster is none that it runs on.
void add_exchange_costs(EpCostParts& parts);

}  // namespace moecast
