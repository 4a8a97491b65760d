#include "sim/step/pipeline_schedule.h"

#include <algorithm>
#include <cassert>
#include <numeric>

namespace moecast {
namespace {

/// Rounds of all micro-batches after which a pipeline repeats itself, and over which the period is a mean.
constexpr int kRoundsToSettle = 16;
constexpr int kRoundsOfMean = 16;

/// When each stage is free again, and when each micro-batch came out last.
class Schedule {
 public:
  explicit Schedule(std::span<const MicroBatchTimes> micro_batches)
      : micro_batches_(micro_batches),
        free_(micro_batches.front().stages.size(), 0.0),
        out_(micro_batches.size(), 0.0) {}

  /// Every micro-batch passes once more. @return when the last of them is out.
  double pass() {
    for (std::size_t j = 0; j < micro_batches_.size(); ++j) {
      const MicroBatchTimes& times = micro_batches_[j];
      double ready = std::max(out_[j], free_.front());
      for (std::size_t s = 0; s < free_.size(); ++s) {
        if (s > 0) {
          ready = std::max(ready, free_[s]) + times.transfers[s - 1];
          free_[s - 1] = ready;
        }
        ready += times.stages[s];
        free_[s] = ready;
      }
      out_[j] = ready;
    }
    return out_.back();
  }

 private:
  std::span<const MicroBatchTimes> micro_batches_;
  std::vector<double> free_;
  std::vector<double> out_;
};

double total(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

}  // namespace

PipelineTimes pipeline_times(std::span<const MicroBatchTimes> micro_batches) {
  assert(!micro_batches.empty() && !micro_batches.front().stages.empty());
  PipelineTimes times;
  const auto stages = static_cast<double>(micro_batches.front().stages.size());
  double computed = 0;
  for (const MicroBatchTimes& one : micro_batches) {
    assert(one.stages.size() == micro_batches.front().stages.size() && one.transfers.size() + 1 == one.stages.size());
    const double all = total(one.stages);
    computed += all;
    times.longest_path_s = std::max(times.longest_path_s, all + total(one.transfers));
  }
  Schedule schedule(micro_batches);
  times.fill_drain_s = schedule.pass();
  if (micro_batches.size() == 1) {
    times.fill_drain_s = times.period_s = times.longest_path_s;
  } else {
    double begin = 0;
    for (int round = 1; round < kRoundsToSettle; ++round) begin = schedule.pass();
    double end = begin;
    for (int round = 0; round < kRoundsOfMean; ++round) end = schedule.pass();
    times.period_s = std::max(times.longest_path_s, (end - begin) / kRoundsOfMean);
  }
  times.fill_drain_bubble_ratio = std::clamp(1 - computed / (stages * times.fill_drain_s), 0.0, 1.0);
  times.period_bubble_ratio = std::clamp(1 - computed / (stages * times.period_s), 0.0, 1.0);
  return times;
}

}  // namespace moecast
