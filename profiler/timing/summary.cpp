#include "profiler/timing/summary.h"

#include <algorithm>
#include <array>
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

/// Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom.
constexpr std::array kStudent{12.706, 4.303, 3.182, 2.776};
/// A median of normal values strays this much more than their mean, with many of them; with two they are the same.
constexpr double kMedianStrays = 1.2533;

/// Of few values: Student's t of their logarithms.
Interval few_interval(const std::vector<double>& values) {
  const double middle = median_of(values);
  if (values.size() < 2) return {middle, middle};
  const auto n = static_cast<double>(values.size());
  double mean = 0;
  for (const double value : values) mean += std::log(value) / n;
  double squares = 0;
  for (const double value : values) squares += std::pow(std::log(value) - mean, 2);
  const double error = std::sqrt(squares / (n - 1) / n) * (values.size() > 2 ? kMedianStrays : 1);
  const double reach = std::exp(kStudent[values.size() - 2] * error);
  return {middle / reach, middle * reach};
}

/// 95 % interval of a median by order statistics: ranks n/2 -+ 0.98 sqrt(n) (normal form of the binomial).
Interval median_interval(std::vector<double> values) {
  if (values.size() < kStudent.size() + 2) return few_interval(values);
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
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
    summary.raw.push_back(
        {sample.round, sample.calls, sample.wall.value(), sample.cpu.value(), sample.involuntary_switches});
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
  std::vector<double> few;
  if (rounds.size() == 1) {
    for (const Sample& sample : samples.samples) few.push_back(sample.wall.value());
  }
  Interval interval = median_interval(few.size() < 2 ? summary.round_s : few);
  interval.low = std::min(interval.low, summary.latency.value());
  interval.high = std::max(interval.high, summary.latency.value());
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
  measurement.raw = summary->raw;
  return measurement;
}

Measurement merge(const Measurement& a, const Measurement& b) {
  if (!(a.point == b.point)) throw InputError("", "measurements of different points cannot be merged");
  Measurement merged = a;
  merged.samples += b.samples;
  merged.preempted += b.preempted;
  const int rounds = static_cast<int>(a.round_s.size());
  for (RawSample sample : b.raw) {
    sample.round += rounds;
    merged.raw.push_back(sample);
  }
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
