#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "profiler/cuda/device.h"

namespace moecast {

struct GpuSessionOptions {
  int rounds = 12;
  int samples_per_round = 3;
  Seconds sample_time{1e-3};  ///< a sample replays about this long
  int most_calls = 512;       ///< of one sample, unless its ring has more copies
  int warm_replays = 2;       ///< after the cache was flushed, before the first sample
  Seconds budget{240};        ///< stops between points
  Seconds checkpoint_every{15};
  std::uint64_t seed = 7;
  const std::atomic<bool>* interrupted = nullptr;
  std::function<double()> clock;  ///< seconds; the steady clock when empty
  std::function<void(const std::vector<Measurement>&)> checkpoint;
  std::function<void(int round, double done_ratio)> progress;
};

struct GpuSessionResult {
  std::vector<Measurement> measurements;  ///< points that ran at least once, in the order of the plan
  std::vector<std::string> skipped;       ///< "grouped fused_moe: why", one for each reason
  int rounds_finished = 0;
  bool interrupted = false;
};

/// Times every point once a round, in a new order each round; each visit flushes the L2 cache, replays the ring until
/// it is in its steady state, then takes its samples. A point whose recording fails is left out with its reason.
GpuSessionResult run_gpu_session(GpuDevice& device, const std::vector<KernelPoint>& points,
                                 const GpuSessionOptions& options);

}  // namespace moecast
