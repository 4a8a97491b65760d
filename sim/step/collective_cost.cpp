#include "sim/step/collective_cost.h"

#include <algorithm>

#include "sim/cost/kernel/ready_kernel.h"

namespace moecast {
namespace {

/// Where no table helps: start of a collective, s, and the share of a link that it reaches.
constexpr double kUsualStart = 10e-6;
constexpr double kUsualBandwidth = 0.7;
/// Links that no datasheet of the profile knows, B/s: PCIe 4.0 x16 and a NIC of 400 Gbit/s.
constexpr double kAssumedLink = 25e9;
constexpr double kAssumedNic = 50e9;

KernelRowValues row_of(const KernelLayout& layout, int ranks, double nodes) {
  KernelRowValues row(layout);
  row.set("message_size", 1).set("num_gpus", ranks).set("element_bytes", kActivationBytes).set("node_num", nodes);
  return row.set("eager", 0);
}

/// @param buffer  the kernel's own, over the one that is asked for.
CollectiveCost measured_cost(const ReadyKernel& kernel, const KernelRowValues& row, std::size_t size, double buffer) {
  const auto at = [=](double elements) {
    KernelRowValues asked = row;
    return asked.set(size, std::max(1.0, buffer * elements));
  };
  return {kernel->described(), [=](double elements) { return kernel->seconds(at(elements)); },
          [=](double elements) { return kernel->at(at(elements)); }};
}

ReadyKernel own_all_reduce(const KernelCalibration& calibration, std::string_view framework, std::string_view version,
                           int ranks) {
  const KernelLayout& layout = *find_kernel_layout("custom_allreduce");
  const KernelWanted wanted{layout.name, "all_reduce", "", framework, version, {}};
  return find_ready_kernel(calibration, wanted, row_of(layout, ranks, 1));
}

}  // namespace

bool stage_crosses_nodes(std::int64_t stage, std::int64_t ranks, std::int64_t node_devices) {
  if (ranks >= node_devices) return true;
  for (std::int64_t rank = stage * ranks; rank < (stage + 1) * ranks; ++rank) {
    if (rank / node_devices != (rank + ranks) / node_devices) return true;
  }
  return false;
}

CollectiveCost collective_cost(const KernelCalibration& calibration, std::string_view operation, int ranks,
                               double nodes) {
  const bool pair = operation == "point_to_point";
  const KernelLayout& layout = *find_kernel_layout("nccl");
  const KernelRowValues row = row_of(layout, ranks, nodes);
  const KernelWanted wanted{"nccl", pair ? "alltoall" : operation, "", "nccl", "", {}};
  if (const ReadyKernel kernel = find_ready_kernel(calibration, wanted, row)) {
    CollectiveCost cost = measured_cost(kernel, row, layout.column("message_size"), pair ? 2 : 1);
    if (pair) cost.kernel += " (all-to-all of two ranks stands for point to point)";
    return cost;
  }
  const DeviceLimits& device = calibration.device;
  const double known = nodes > 1 ? device.nic : device.link;
  const double rate = kUsualBandwidth * (known > 0 ? known : nodes > 1 ? kAssumedNic : kAssumedLink);
  // Of its buffer a rank sends all but its own part; a reduction travels there and back.
  const double share = pair ? 1 : (operation == "all_reduce" ? 2.0 : 1.0) * (ranks - 1) / ranks;
  return {"physics", [=](double elements) { return kUsualStart + share * elements * kActivationBytes / rate; }};
}

bool has_all_reduce(const KernelCalibration& calibration, std::string_view framework, int ranks) {
  const ReadyKernel kernel = own_all_reduce(calibration, framework, "", ranks);
  return kernel && kernel->model.key.framework == framework;
}

CollectiveCost engine_all_reduce_cost(const KernelCalibration& calibration, std::string_view framework,
                                      std::string_view version, int ranks) {
  const ReadyKernel kernel = own_all_reduce(calibration, framework, version, ranks);
  if (!kernel) return collective_cost(calibration, "all_reduce", ranks, 1);
  const KernelLayout& layout = *find_kernel_layout("custom_allreduce");
  return measured_cost(kernel, row_of(layout, ranks, 1), layout.column("message_size"), 1);
}

}  // namespace moecast
