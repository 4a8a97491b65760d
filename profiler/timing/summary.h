#pragma once
#include <optional>
#include <vector>

#include "hwprofiles/measurement.h"
#include "profiler/timing/session.h"

namespace moecast {

/// What a job's samples say, in the one statistic used everywhere: the mean of a round's samples, the median over
/// rounds. Preempted samples are left out of a round that has others.
struct TimingSummary {
  Seconds latency;
  Seconds low;  ///< 95 % interval of the median: order statistics of the rounds, Student's t where they are few; of
                ///< one round, of its samples. One sample alone says nothing: its interval is empty
  Seconds high;
  int samples = 0;
  int preempted = 0;
  std::vector<double> round_s;
  std::vector<RawSample> raw;
};

/// nullopt when the job never ran (the budget ended before it).
std::optional<TimingSummary> summarise_timing(const JobSamples& samples);

/// The same as a measurement of `point`.
std::optional<Measurement> summarise(const KernelPoint& point, const JobSamples& samples);

/// One measurement from two of the same point, round by round. @throws InputError when the points differ.
Measurement merge(const Measurement& a, const Measurement& b);

/// |a / b - 1| of the medians over even and over odd rounds: how much a rerun moves. nullopt with fewer than two
/// rounds.
std::optional<double> rerun_difference(const std::vector<double>& round_s);

}  // namespace moecast
