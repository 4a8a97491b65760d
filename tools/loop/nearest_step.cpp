#include "tools/loop/nearest_step.h"

#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "models/core/error.h"
#include "models/core/statistics.h"
#include "sim/step/step_log_model.h"

namespace moecast {
namespace {

std::array<double, 3> place_of(const StepRecord& step) {
  return {std::log2(1 + step.context_tokens), std::log2(1 + step.decodes),
          std::log2(1 + step.decodes * step.decode_kv + step.prefix_tokens)};
}

}  // namespace

NearestStep::NearestStep(const std::vector<StepRecord>& reference) {
  if (reference.size() <= kWarmUpSteps) {
    throw InputError("reference", "holds no step after its warm-up", "give a longer log");
  }
  steps_.assign(reference.begin() + kWarmUpSteps, reference.end());
}

double NearestStep::seconds(const StepRecord& step) const {
  const std::array<double, 3> wanted = place_of(step);
  double least = std::numeric_limits<double>::infinity();
  std::vector<double> found;
  for (const bool other_kind : {false, true}) {  // a log without prompts still has a nearest step
    for (const StepRecord& known : steps_) {
      if (((known.context_tokens > 0) == (step.context_tokens > 0)) == other_kind) continue;
      const std::array<double, 3> at = place_of(known);
      double distance = 0;
      for (std::size_t i = 0; i < at.size(); ++i) distance += (at[i] - wanted[i]) * (at[i] - wanted[i]);
      if (distance > least) continue;
      if (distance < least) found.clear();
      least = distance;
      found.push_back(known.latency_s);
    }
    if (!found.empty()) break;
  }
  return median(std::move(found));
}

}  // namespace moecast
