#pragma once
#include <span>
#include <vector>

namespace moecast {

/// One micro-batch on its way through the stages of a pipeline, seconds.
struct MicroBatchTimes {
  std::vector<double> stages;     ///< computing on each stage
  std::vector<double> transfers;  ///< from each stage to the next: one fewer than stages
};

struct PipelineTimes {
  double longest_path_s = 0;  ///< the slowest micro-batch if it were alone: its stages and transfers
  double fill_drain_s = 0;  ///< from the first stage's start to the last stage's end, nothing before and nothing after
  double period_s = 0;      ///< between two passes of a micro-batch that starts again once it came out: generation
  double fill_drain_bubble_ratio = 0;  ///< share of that time that a stage waits, mean of all stages; 0 to 1
  double period_bubble_ratio = 0;
};

/// Micro-batches pass all stages in their order, one at a time on each. A transfer keeps both of its stages busy, for
/// libraries send and receive on the stream that computes: it starts when the sender has computed and the receiver is
/// free.
///
/// One micro-batch: all three times are the sum of its stages and transfers. m equal ones on p equal stages t without
/// transfers: fill_drain = (m + p - 1) t, period = max(m, p) t.
/// @param micro_batches  at least one, all with as many stages, at least one.
PipelineTimes pipeline_times(std::span<const MicroBatchTimes> micro_batches);

}  // namespace moecast
