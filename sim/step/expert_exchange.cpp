#include "sim/step/expert_exchange.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "sim/cost/kernel/expert_traffic.h"
#include "sim/cost/kernel/ready_kernel.h"
#include "sim/step/collective_cost.h"

namespace moecast {
namespace {

constexpr std::string_view kLowLatency = "wideep_deepep_ll";
constexpr std::string_view kNormal = "wideep_deepep_normal";
constexpr std::array<std::string_view, 2> kParts{"dispatch", "combine"};

}  // namespace

bool is_wide_expert_parallelism(const Deployment& d, int node_devices) {
  return d.tp == 1 && d.cp == 1 && d.dp > node_devices && d.dp % node_devices == 0 && d.ep == d.dp;
}

bool add_deepep_exchange(const RoutedLayers& layers, const Deployment& deployment, const KernelCalibration& calibration,
                         StepOperators& operators) {
  const auto row_of = [&](const KernelLayout& layout) {
    KernelRowValues row(layout);
    row.set("num_token", 1).set("hidden_size", layers.hidden).set("num_topk", layers.top_k);
    row.set("num_experts", layers.experts)
        .set("node_num", static_cast<double>(deployment.dp / calibration.device.node_devices));
    if (layout.name == kNormal) row.set("dispatch_sms", kDispatchMultiprocessors);
    return row;
  };
  std::array<std::array<ReadyKernel, 2>, 2> kernels;  // part, low latency or normal
  for (std::size_t part = 0; part < 2; ++part) {
    for (const std::size_t mode : {std::size_t{0}, std::size_t{1}}) {
      const KernelLayout& layout = *find_kernel_layout(mode == 0 ? kLowLatency : kNormal);
      kernels[part][mode] =
          find_ready_kernel(calibration, {layout.name, kParts[part], "", "sglang", "", {}}, row_of(layout));
      if (!kernels[part][mode]) return false;
    }
  }
  for (std::size_t part = 0; part < 2; ++part) {
    const KernelLayout& low = *find_kernel_layout(kLowLatency);
    const KernelLayout& normal = *find_kernel_layout(kNormal);
    operators.operators.push_back(
        {std::string(kParts[part]),
         kernels[part][0]->model.key.text() + ", with prompts " + kernels[part][1]->model.key.text(),
         StepGroup::communication, layers.count,
         [few = kernels[part][0], many = kernels[part][1], low_row = row_of(low), normal_row = row_of(normal),
          low_tokens = low.column("num_token"), sent = low.column(kSentRowsColumn),
          normal_tokens = normal.column("num_token"), top_k = layers.top_k,
          placed = layers.placed](const StepShape& shape) {
           const double rows = std::max(1.0, shape.rows);
           if (shape.prompts > 0) {  // between nodes a copy a node, which hands it on inside
             KernelRowValues asked = normal_row;
             return many->seconds(asked.set(normal_tokens, rows * placed->node_imbalance(shape.expert_rows)));
           }
           const double imbalance = placed->imbalance(shape.expert_rows);
           KernelRowValues asked = low_row;
           return few->seconds(asked.set(low_tokens, rows).set(sent, rows * top_k * imbalance));
         }});
    operators.collectives += layers.count;
  }
  return true;
}

}  // namespace moecast
