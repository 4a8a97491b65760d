#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "models/core/statistics.h"
#include "sim/cost/kernel/kernel_fit.h"
#include "tests/support/made_up_kernels.h"

namespace moecast::test {

inline KernelModel fitted(const KernelSamples& samples, const DeviceLimits& device = made_up_device()) {
  RankLoadCache loads;
  return fit_kernel(samples, make_kernel_law(samples.key, device), loads);
}

/// How a model answers for rows: errors are |predicted / measured - 1|.
struct Judged {
  std::size_t rows = 0;
  double median = 0;
  double p90 = 0;
  double coverage = 0;  ///< share inside 90 % intervals
};

inline Judged judge(const KernelModel& model, const KernelSamples& truth,
                    const std::function<bool(const std::vector<double>& row)>& asked = {}) {
  RankLoadCache loads;
  CompiledKernel::Workspace workspace;
  std::vector<double> errors;
  std::vector<double> row;
  double inside = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    truth.row(i, row);
    if (asked && !asked(row)) continue;
    const CompiledKernel::Answer answer =
        CompiledKernel(model, row, workspace).at({row, table_load(truth.key, row, loads)}, loads);
    const double measured = std::log(truth.latency_s[i]);
    errors.push_back(std::abs(std::expm1(answer.log_seconds - measured)));
    inside += answer.log_low <= measured && measured <= answer.log_high ? 1 : 0;
  }
  if (errors.empty()) return {};
  return {errors.size(), median(errors), quantile(errors, 0.9), inside / static_cast<double>(errors.size())};
}

}  // namespace moecast::test
