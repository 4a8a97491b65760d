#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/core/units.h"

namespace moecast {

struct JobSamples;

/// Something that can be timed over and over: a kernel at a point, or a whole layer.
class Job {
 public:
  virtual ~Job() = default;
  /// Builds primitives and buffers; not timed; called before each round's samples (cheap when already built).
  virtual void prepare() = 0;
  /// One execution, on the next copy of its ring.
  virtual void run() = 0;
  /// Calls that bring the caches into their steady state after another job ran (a whole ring, all copies).
  virtual void warm_up() = 0;
  /// Smallest number of calls in a sample (a layer cycles through all its copies).
  [[nodiscard]] virtual int calls_per_sample() const { return 1; }
  [[nodiscard]] virtual int threads() const { return 1; }
  /// Bytes touched between two uses of the same weights: jobs beyond the caches get longer samples.
  [[nodiscard]] virtual double ring_bytes() const { return 0; }
};

struct Sample {
  int round = 0;
  int calls = 0;
  Seconds wall;  ///< per call
  Seconds cpu;   ///< thread CPU time per call (calling thread)
  long involuntary_switches = 0;
};

struct SessionOptions {
  int rounds = 4;
  int samples_per_round = 3;
  Seconds sample_time{1.5e-3};
  /// Memory bandwidth of a shared machine moves within milliseconds: samples as short as the warm ones catch its best
  /// moments and make layers look 10-20 % slower than their kernels (bf16 layers: 9.1 % error with 1.5 ms and the best
  /// sample of a round, 4.9 % with 6 ms and the mean).
  Seconds cold_sample_time{6e-3};
  double cold_ring_bytes = 30e6;  ///< rings above this are timed with cold_sample_time
  Seconds budget{90};             ///< stops between jobs
  bool whole_first_round = true;  ///< however long; else what it does not reach in half the budget is left out
  /// Jobs that the first two rounds time however little of the budget is left; true for each such, or empty: none.
  std::vector<bool> indispensable;
  std::uint64_t seed = 7;
  const std::atomic<bool>* interrupted = nullptr;
  std::function<void(double done_ratio, Seconds left)> progress;
  /// After each complete round, with everything so far: to keep it in case the program is killed.
  std::function<void(const std::vector<JobSamples>& so_far)> after_round;
};

struct JobSamples {
  std::vector<Sample> samples;
};

/// Times every job once a round, in a new order each round, with Google Benchmark as the harness. Jobs of equally many
/// threads follow each other.
std::vector<JobSamples> run_session(const std::vector<std::unique_ptr<Job>>& jobs, const SessionOptions& options);

}  // namespace moecast
