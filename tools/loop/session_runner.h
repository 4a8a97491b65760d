#pragma once
#include <functional>
#include <vector>

#include "hwprofiles/measurement.h"
#include "profiler/cpu/buffers.h"
#include "profiler/reference/cases.h"
#include "profiler/timing/session.h"
#include "profiler/timing/summary.h"

namespace moecast {

/// A layer or small model that was executed and timed.
struct ExecutedCase {
  ValidationCase asked;  ///< with the rows that its experts really got, where it is a single MoE block
  TimingSummary timing;
};

struct SessionResult {
  std::vector<Measurement> kernels;  ///< points that were reached
  std::vector<ExecutedCase> layers;
  bool complete = true;  ///< false when interrupted or out of budget before the last round
};

struct SessionRequest {
  std::vector<KernelPoint> kernels;
  std::vector<ValidationCase> layers;
  SessionOptions timing;  ///< `after_round` is the runner's own
  /// After each complete round: the kernels so far, to be kept in case the program is killed.
  std::function<void(const std::vector<Measurement>&)> checkpoint;
};

/// Times kernels and layers in the same interleaved rounds, with the same statistic.
SessionResult run_mixed_session(const SessionRequest& request, const KernelBuffers& buffers);

}  // namespace moecast
