#include "tools/loop/kernel_strata.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <vector>

#include "sim/cost/kernel/kernel_law.h"

namespace moecast {

void add_kernel_outcome(const KernelSamples& samples, std::size_t row, const KernelLaw& law, const Outcome& outcome,
                        Strata& strata) {
  const KernelLayout& layout = samples.layout();
  const auto value = [&](std::size_t column) { return samples.columns[column][row]; };
  strata.add("all", outcome);
  if (!samples.key.dtype.empty()) strata.add("dtype " + samples.key.dtype, outcome);
  strata.add("kernel " + samples.key.kernel + (samples.key.dtype.empty() ? "" : " " + samples.key.dtype), outcome);
  std::vector<double> values;
  samples.row(row, values);
  constexpr std::array<const char*, kKernelBands> kBandNames{"<= 16", "17-256", "> 256"};
  const std::size_t band = law.stratum(values).band;
  if (law.pools_scores() && layout.name != "nvlink_one_sided") {
    constexpr std::array<const char*, kKernelBands> kSizes{"<= 64 KiB", "<= 4 MiB", "> 4 MiB"};
    strata.add(fmt::format("bytes {}", kSizes[band]), outcome);
  } else {
    strata.add(fmt::format("{} {}",
                           layout.kind == OperatorKind::fused_moe || is_communication(layout.name) ? "tokens" : "rows",
                           kBandNames[band]),
               outcome);
  }
  for (std::size_t c = 0; c < layout.numbers.size(); ++c) {
    const std::string_view name = layout.numbers[c].name;
    if (name == kDistributionColumn) strata.add("load " + distribution_text(value(c)), outcome);
    if (name == "moe_tp_size") strata.add(fmt::format("tp {:.0f}", value(c)), outcome);
    if (name == "num_gpus" || name == "ep_size") {
      strata.add(fmt::format("ranks {:.0f}", value(c)), outcome);
      strata.add(fmt::format("ranks {:.0f} {}", value(c), samples.key.kernel), outcome);
    }
    if (name == "node_num") {
      strata.add(fmt::format("nodes {:.0f}", value(c)), outcome);
      strata.add(fmt::format("nodes {:.0f} {}", value(c), samples.key.kernel), outcome);
    }
    if (name == "moe_ep_size") strata.add(fmt::format("ep {:.0f}", value(c)), outcome);
  }
  std::string shape;
  for (const std::string_view name : law.group_columns("shape")) {
    shape += fmt::format("{}{:.0f}", shape.empty() ? "" : "x", value(layout.column(name)));
  }
  if (!shape.empty()) strata.add("shape " + shape, outcome);
}

}  // namespace moecast
