#include "tools/cli/measure_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "profiler/cpu/gemm.h"
#include "profiler/environment.h"
#include "tools/cli/command.h"
#include "tools/cli/query_options.h"

namespace moecast {
namespace {

std::string known_backend(const std::string& name) {
  const std::vector<std::string> known = gemm_backends();
  if (std::find(known.begin(), known.end(), name) != known.end()) return name;
  const std::vector<std::string_view> names(known.begin(), known.end());
  const auto near = nearest_name(name, names);
  throw UsageError(
      "--backend", fmt::format("\"{}\" is not in this build", name),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("this build has {}", fmt::join(known, ", ")));
}

std::vector<int> thread_counts(const std::string& text) {
  const auto cpus = std::max<std::int64_t>(1, static_cast<std::int64_t>(read_environment().allowed_cpus.size()));
  std::vector<int> counts;
  if (text.empty()) {
    counts = cpus > 1 ? std::vector<int>{1, static_cast<int>(cpus)} : std::vector<int>{1};
  } else {
    for (const std::int64_t n : parse_range(text, "--threads", 1, 4096)) counts.push_back(static_cast<int>(n));
  }
  if (counts.back() > cpus) {
    throw UsageError("--threads", fmt::format("{} threads on {} usable CPUs", counts.back(), cpus),
                     "more threads than CPUs measure the scheduler");
  }
  return counts;
}

}  // namespace

std::vector<KernelSetting> parse_combinations(const std::string& backends, const std::string& dtypes,
                                              const std::string& threads) {
  const auto names = split_list(backends.empty() ? "onednn,openblas" : backends, "--backend");
  const auto types = split_list(dtypes.empty() ? "fp32,bf16" : dtypes, "--dtype");
  std::vector<KernelSetting> combinations;
  for (const int count : thread_counts(threads)) {
    for (const std::string& name : names) {
      for (const std::string& type : types) {
        const DType dtype = parse_dtype_flag(type);
        if (gemm_supports(known_backend(name), dtype)) combinations.push_back({name, dtype, count});
      }
    }
  }
  for (const std::string& type : types) {
    const bool computed = std::any_of(combinations.begin(), combinations.end(),
                                      [&](const KernelSetting& c) { return c.dtype == parse_dtype_flag(type); });
    if (computed || (dtypes.empty() && !combinations.empty())) continue;
    throw UsageError(dtypes.empty() ? "--backend" : "--dtype",
                     fmt::format("{} does not compute {} on this CPU", fmt::join(names, ", "), type),
                     "moecast doctor shows what each backend computes here");
  }
  return combinations;
}

}  // namespace moecast
