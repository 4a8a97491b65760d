#include "tools/loop/kernel_picks.h"

#include <fmt/format.h>

namespace moecast {

void PickReport::add(const std::vector<BackendRules>& backends, const KernelSamples& samples) {
  const KernelKey& key = samples.key;
  std::vector<double> row;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    samples.row(i, row);
    const KernelRule* rule = find_kernel_rule(backends, key.framework, key.layout, key.dtype, row);
    if (rule == nullptr) {
      ++no_rule;
      continue;
    }
    const bool agrees = rule->names(key.kernel);
    ++(agrees ? agree : disagree);
    if (rule->origin == Origin::assumed) ++assumed;
    if (!agrees && example.empty()) {
      example = fmt::format("{} where the rule ({}) says {}", key.text(), rule->when_text(),
                            fmt::join(rule->kernels, " or "));
    }
  }
}

}  // namespace moecast
