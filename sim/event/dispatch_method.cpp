#include "sim/event/dispatch_method.h"

#include <algorithm>
#include <array>

#include "sim/cost/kernel/expert_traffic.h"

namespace moecast {
namespace {

constexpr double kLowLatencyTokens = 128;

struct MethodName {
  DispatchMethod method;
  std::string_view name;
  std::string_view framework;  ///< whose tables hold it
};
constexpr std::array<MethodName, 4> kMethods{{{DispatchMethod::low_latency, "deepep-low-latency", "sglang"},
                                              {DispatchMethod::normal, "deepep-normal", "sglang"},
                                              {DispatchMethod::one_sided, "nvlink-one-sided", "trtllm"},
                                              {DispatchMethod::nccl, "nccl", "vllm"}}};

const MethodName& entry_of(DispatchMethod method) {
  return *std::ranges::find_if(kMethods, [&](const MethodName& m) { return m.method == method; });
}

}  // namespace

std::string_view to_string(DispatchMethod method) { return entry_of(method).name; }

std::optional<DispatchMethod> find_dispatch_method(std::string_view name) {
  const auto found = std::ranges::find_if(kMethods, [&](const MethodName& m) { return m.name == name; });
  return found == kMethods.end() ? std::nullopt : std::optional(found->method);
}

std::string_view framework_of(DispatchMethod method) { return entry_of(method).framework; }

DispatchMethod usual_dispatch_method(const KernelCalibration& calibration, const Topology& topology,
                                     double tokens_per_rank) {
  const auto holds = [&](std::string_view layout) {
    return std::ranges::any_of(calibration.kernels, [&](const KernelModel& k) { return k.key.layout == layout; });
  };
  const bool small_domain = topology.ranks_per_node() <= static_cast<int>(kDevicesPerNode);
  if (topology.nodes() == 1 && !small_domain && holds("nvlink_one_sided")) return DispatchMethod::one_sided;
  const bool nodes_of_eight = topology.nodes() == 1 ? topology.ranks() <= static_cast<int>(kDevicesPerNode)
                                                    : topology.ranks_per_node() == static_cast<int>(kDevicesPerNode);
  if (nodes_of_eight && topology.ranks() > 1) {
    if (tokens_per_rank <= kLowLatencyTokens && holds("wideep_deepep_ll")) return DispatchMethod::low_latency;
    if (holds("wideep_deepep_normal")) return DispatchMethod::normal;
  }
  return DispatchMethod::nccl;
}

}  // namespace moecast
