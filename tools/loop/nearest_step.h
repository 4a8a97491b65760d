#pragma once
#include <vector>

#include "hwprofiles/step_log.h"

namespace moecast {

/// The trivial predictor of a step: the recorded step of another deployment that is nearest to it.
class NearestStep {
 public:
  /// @param reference  at least one step; the warm-up of the log is left out.
  explicit NearestStep(const std::vector<StepRecord>& reference);
  /// Latency of the nearest step with prompts where the step has prompts, without where it has none; distance: octaves
  /// of (1 +) new tokens of prompts, sequences that generate, and cache entries that these and the prompts read. The
  /// median of equally near ones.
  [[nodiscard]] double seconds(const StepRecord& step) const;

 private:
  std::vector<StepRecord> steps_;
};

}  // namespace moecast
