#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "hwprofiles/backend_rules.h"
#include "hwprofiles/kernel_samples.h"

namespace moecast {

/// How the rules by which frameworks pick kernels fare against the kernels that a table records.
struct PickReport {
  std::int64_t agree = 0;     ///< rows whose recorded kernel the rule names
  std::int64_t disagree = 0;  ///< rows whose rule names another
  std::int64_t assumed = 0;   ///< of both: rows whose rule is assumed, not measured
  std::int64_t no_rule = 0;   ///< rows of which nothing is known
  std::string example;        ///< of those that disagree

  void add(const std::vector<BackendRules>& backends, const KernelSamples& samples);
};

}  // namespace moecast
