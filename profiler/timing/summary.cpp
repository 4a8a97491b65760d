#include "profiler/timing/summary.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "models/core/error.h"

namespace moecast {
namespace {

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

struct Interval {
  double low;
  double high;
};

/// 95 % interval of a median by order statistics: ranks n/2 -+ 0.98 sqrt(n) (normal form of the binomial).
Interval median_interval(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  if (values.size() < 6) return {values.front(), values.back()};
  const double reach = 0.98 * std::sqrt(n);
  const auto low = static_cast<std::size_t>(std::max(0.0, std::floor(n / 2 - reach)));
  const auto high = static_cast<std::size_t>(std::min(n - 1, std::ceil(n / 2 + reach)));
  return {values[low], values[high]};
}

}  // namespace

std::optional<TimingSummary> summarise_timing(const JobSamples& samples) {
  std::map<int, std::vector<const Sample*>> rounds;
  TimingSummary summary;
  for (const Sample& sample : samples.samples) {
    rounds[sample.round].push_back(&sample);
    ++summary.samples;
    if (sample.involuntary_switches > 0) ++summary.preempted;
  }
  if (rounds.empty()) return std::nullopt;
  for (const auto& [round, taken] : rounds) {
    const bool has_quiet =
        std::any_of(taken.begin(), taken.end(), [](const Sample* sample) { return sample->involuntary_switches == 0; });
    double sum = 0;
    int count = 0;
    for (const Sample* sample : taken) {
      if (has_quiet && sample->involuntary_switches > 0) continue;
      sum += sample->wall.value();
      ++count;
    }
    summary.round_s.push_back(sum / count);
  }
  summary.latency = Seconds(median_of(summary.round_s));
  const Interval interval = median_interval(summary.round_s);
  summary.low = Seconds(interval.low);
  summary.high = Seconds(interval.high);
  return summary;
}

std::optional<Measurement> summarise(const KernelPoint& point, const JobSamples& samples) {
  const auto summary = summarise_timing(samples);
  if (!summary) return std::nullopt;
  Measurement measurement;
  measurement.point = point;
  measurement.latency = summary->latency;
  measurement.low = summary->low;
  measurement.high = summary->high;
  measurement.samples = summary->samples;
  measurement.preempted = summary->preempted;
  measurement.round_s = summary->round_s;
  return measurement;
}

Measurement merge(const Measurement& a, const Measurement& b) {
  if (!(a.point == b.point)) throw InputError("", "measurements of different points cannot be merged");
  Measurement merged = a;
  merged.samples += b.samples;
  merged.preempted += b.preempted;
  merged.round_s.insert(merged.round_s.end(), b.round_s.begin(), b.round_s.end());
  const Interval interval = median_interval(merged.round_s);
  merged.latency = Seconds(median_of(merged.round_s));
  merged.low = Seconds(interval.low);
  merged.high = Seconds(interval.high);
  return merged;
}

std::optional<double> rerun_difference(const std::vector<double>& round_s) {
  std::vector<double> even;
  std::vector<double> odd;
  for (std::size_t i = 0; i < round_s.size(); ++i) (i % 2 == 0 ? even : odd).push_back(round_s[i]);
  if (odd.empty()) return std::nullopt;
  return std::abs(median_of(even) / median_of(odd) - 1);
}

}  // namespace moecast
