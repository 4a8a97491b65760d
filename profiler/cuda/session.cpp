#include "profiler/cuda/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "models/core/error.h"
#include "profiler/timing/summary.h"

namespace moecast {
namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// One point and what is known about it so far.
struct Candidate {
  const KernelPoint* point;
  int calls = 0;  ///< of a sample; 0 = not yet known
  bool failed = false;
  JobSamples taken;
};

class GpuSession {
 public:
  GpuSession(GpuDevice& device, const std::vector<KernelPoint>& points, const GpuSessionOptions& options)
      : device_(device), options_(options), random_(options.seed) {
    if (!options_.clock) options_.clock = steady_seconds;
    for (const KernelPoint& point : points) {
      const std::string refusal = device.refusal(point);
      if (refusal.empty()) {
        candidates_.push_back({&point, 0, false, {}});
      } else {
        skip(point, refusal);
      }
    }
  }

  GpuSessionResult run() {
    const double end = options_.clock() + options_.budget.value();
    double next_checkpoint = options_.clock() + options_.checkpoint_every.value();
    std::vector<std::size_t> order(candidates_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (int round = 0; round < options_.rounds && !order.empty(); ++round) {
      std::shuffle(order.begin(), order.end(), random_);
      for (std::size_t i = 0; i < order.size(); ++i) {
        if (stop_asked()) return finish(round, true);
        if (options_.clock() >= end) return finish(round, false);
        visit(candidates_[order[i]], round);
        if (options_.checkpoint && options_.clock() >= next_checkpoint) {
          options_.checkpoint(measurements());
          next_checkpoint = options_.clock() + options_.checkpoint_every.value();
        }
        if (options_.progress) options_.progress(round, static_cast<double>(i + 1) / static_cast<double>(order.size()));
      }
    }
    return finish(options_.rounds, false);
  }

 private:
  [[nodiscard]] bool stop_asked() const { return options_.interrupted != nullptr && options_.interrupted->load(); }

  void skip(const KernelPoint& point, const std::string& why) {
    ++skipped_[point.backend + " " + std::string(to_string(point.kind)) + ": " + why];
  }

  /// A whole number of rings that lasts about a sample: every copy is used equally often.
  int calls_for(Seconds call, int copies) const {
    const double wanted = options_.sample_time.value() / std::max(call.value(), 1e-9);
    const double limited = std::clamp(wanted, 1.0, static_cast<double>(options_.most_calls));
    return copies * std::max(1, static_cast<int>(std::round(limited / copies)));
  }

  void visit(Candidate& candidate, int round) {
    if (candidate.failed) return;
    try {
      take_samples(candidate, round);
    } catch (const DeviceError& error) {
      candidate.failed = true;
      skip(*candidate.point, error.problem());
    }
  }

  void take_samples(Candidate& candidate, int round) {
    const KernelPoint& point = *candidate.point;
    const int copies = std::max(1, device_.copies(point));
    if (candidate.calls == 0) {
      const auto probe = device_.record(point, copies);
      probe->replay();
      candidate.calls = calls_for(probe->replay() / static_cast<double>(copies), copies);
    }
    const auto program = device_.record(point, candidate.calls);
    device_.flush_cache();
    for (int i = 0; i < options_.warm_replays; ++i) program->replay();
    for (int i = 0; i < options_.samples_per_round; ++i) {
      Sample sample;
      sample.round = round;
      sample.calls = candidate.calls;
      sample.wall = program->replay() / static_cast<double>(candidate.calls);
      if (sample.wall.value() > 0) candidate.taken.samples.push_back(sample);
    }
  }

  [[nodiscard]] std::vector<Measurement> measurements() const {
    std::vector<Measurement> all;
    for (const Candidate& candidate : candidates_) {
      if (const auto measured = summarise(*candidate.point, candidate.taken)) all.push_back(*measured);
    }
    return all;
  }

  [[nodiscard]] GpuSessionResult finish(int rounds, bool interrupted) const {
    GpuSessionResult result;
    result.measurements = measurements();
    result.rounds_finished = rounds;
    result.interrupted = interrupted;
    for (const auto& [reason, count] : skipped_) result.skipped.push_back(reason + " (" + std::to_string(count) + ")");
    return result;
  }

  GpuDevice& device_;
  GpuSessionOptions options_;
  std::mt19937_64 random_;
  std::vector<Candidate> candidates_;
  std::map<std::string, int> skipped_;
};

}  // namespace

GpuSessionResult run_gpu_session(GpuDevice& device, const std::vector<KernelPoint>& points,
                                 const GpuSessionOptions& options) {
  return GpuSession(device, points, options).run();
}

}  // namespace moecast
