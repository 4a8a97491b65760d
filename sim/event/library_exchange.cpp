#include "sim/event/library_exchange.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "sim/cost/kernel/ready_kernel.h"

namespace moecast {
namespace {

/// Operations, and what NCCL's tables call them. A send is half of an all-to-all of two ranks.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kLibraryNames{
    {{"all-to-all", "alltoall"},
     {"all-gather", "all_gather"},
     {"reduce-scatter", "reduce_scatter"},
     {"all-reduce", "all_reduce"},
     {"send", "alltoall"}}};
/// Of bf16, which most is sent in.
constexpr double kElementBytes = 2;

}  // namespace

std::optional<LibraryCost> library_cost(const KernelCalibration& calibration, const Topology& topology,
                                        std::string_view operation, double bytes) {
  const auto* const known =
      std::ranges::find(kLibraryNames, operation, &std::pair<std::string_view, std::string_view>::first);
  if (known == kLibraryNames.end() || topology.ranks() < 2 || !(bytes > 0)) return std::nullopt;
  const bool send = operation == "send";
  const bool across = topology.nodes() > 1;
  const KernelLayout& layout = *find_kernel_layout("nccl");
  KernelRowValues row(layout);
  row.set("message_size", std::max(1.0, (send ? 2 : 1) * bytes / kElementBytes))
      .set("num_gpus", send ? 2 : topology.ranks())
      .set("element_bytes", kElementBytes)
      .set("node_num", send ? (across ? 2 : 1) : topology.nodes())
      .set("eager", 0);
  const auto kernel = find_ready_kernel(calibration, {"nccl", known->second, "", "nccl", "", {}}, row);
  if (!kernel) return std::nullopt;
  DeviceLimits links = calibration.device;
  if (topology.port_bandwidth() > 0) links.link = topology.port_bandwidth();
  if (topology.nic_bandwidth() > 0) links.nic = topology.nic_bandwidth();
  move_to_links(*kernel, calibration.device, links, across, row);
  const CompiledKernel::Answer answer = kernel->at(row);
  LibraryCost cost{
      kernel->described(), std::exp(answer.log_seconds), std::exp(answer.log_low), std::exp(answer.log_high), 0,
      answer.origin};
  cost.start_s = std::min(cost.seconds, kernel->seconds(row.set("message_size", 1)));
  return cost;
}

}  // namespace moecast
