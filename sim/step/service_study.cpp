#include "sim/step/service_study.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "models/routing/random.h"
#include "sim/step/service_statistics.h"

namespace moecast {
namespace {

/// Batches that are completed to see the rate of saturation: the first fills the service, the last drains it.
constexpr double kBatches = 10;
constexpr double kLeastBatches = 3;
constexpr double kLeastRequests = 200;
/// Tokens that are generated at most to see it.
constexpr double kMostStudyTokens = 2e7;
/// From this share of saturation on, a simulated queue that grows all the time is believed.
constexpr double kNearSaturation = 0.9;
/// A service that falls behind completes less than this share of what comes.
constexpr double kKeepsUp = 0.97;
/// A queue that grows steadily is twice as long in the last quarter as in the second; half of that is believed.
constexpr double kGrows = 1.5;
/// Share of a recorded load.
constexpr double kFewWaiting = 0.02;

double mean_of(std::span<const ServiceRequest> requests, double (*value)(const ServiceRequest&)) {
  double sum = 0;
  for (const ServiceRequest& request : requests) sum += value(request);
  return sum / static_cast<double>(requests.size());
}

/// That generate, of all instances.
int micro_batches_of(const ServiceSetup& setup) {
  return setup.pipeline.stages * (setup.split ? setup.split->decode_instances : setup.instances);
}

/// Requests that are in the batches of all instances at once.
double expected_batch(std::span<const ServiceRequest> requests, const ServiceSetup& setup) {
  const ServiceLimits limits = micro_batch_limits(setup);
  auto sequences = static_cast<double>(limits.sequences);
  if (limits.kv_blocks) {
    const double tokens =
        mean_of(requests, [](const ServiceRequest& r) { return static_cast<double>(r.prompt + r.output); });
    const auto blocks = static_cast<double>(limits.blocks_of(static_cast<std::int64_t>(std::ceil(tokens))));
    sequences = std::min(sequences, std::ceil(static_cast<double>(*limits.kv_blocks) / blocks));
  }
  return sequences * micro_batches_of(setup);
}

/// Requests that may wait in a recorded load without meaning anything. Of a burst that is over before a request that
/// came first would have ended, a whole batch: it is served at once.
double recorded_noise(std::span<const ServiceRequest> requests, const ServiceOutcome& outcome) {
  const double span = requests.back().arrival_s - requests.front().arrival_s;
  const double alone = outcome.end_to_end.mean - outcome.wait.mean;
  if (span <= alone) return static_cast<double>(outcome.counts.most_running);
  return 1 + kFewWaiting * static_cast<double>(requests.size());
}

/// @param noise  requests that may wait without meaning anything.
bool queue_grows(const ServiceOutcome& outcome, double noise) {
  const auto& q = outcome.waiting_quarters;
  return q[2] > q[1] && q[3] > q[2] && q[3] > kGrows * q[1] + noise;
}

/// Requests a second, between the middles of the second and the last quarter.
double growth_of(std::span<const ServiceRequest> requests, const ServiceOutcome& outcome) {
  const double span = requests.back().arrival_s - requests.front().arrival_s;
  return (outcome.waiting_quarters[3] - outcome.waiting_quarters[1]) / (span / 2);
}

/// Where all come at once there is no rate.
std::optional<double> recorded_rate(std::span<const ServiceRequest> requests) {
  const double span = requests.back().arrival_s - requests.front().arrival_s;
  if (span <= 0) return std::nullopt;
  return static_cast<double>(requests.size() - 1) / span;
}

}  // namespace

std::optional<double> saturation_rate(std::span<const ServiceRequest> all, const ServiceSetup& setup,
                                      const ServiceStepSeconds& seconds) {
  // First requests that are not measured may have been cut, as if begun before.
  const std::span<const ServiceRequest> requests = all.subspan(std::min(setup.warmup_requests, all.size() - 1));
  const double batch = expected_batch(requests, setup);
  const double output = mean_of(requests, [](const ServiceRequest& r) { return static_cast<double>(r.output); });
  const double affordable = std::max(kLeastBatches * batch, kMostStudyTokens / output);
  const auto count = static_cast<std::size_t>(std::min(std::max(kBatches * batch, kLeastRequests), affordable));
  std::vector<ServiceRequest> waiting(count);
  Random random(1);
  for (std::size_t i = 0; i < count; ++i) {
    waiting[i] = requests[i % requests.size()];
    waiting[i].arrival_s = 0;
    waiting[i].priority = 0;  // who goes first does not change how many go
    // A service that has run for long is in no lockstep: the first batch has been begun at any time before.
    const double left = static_cast<double>(i) < batch ? random.uniform() : 1;
    // One that generates still does: a single token would come of its prompt, without a place among decodes.
    const std::int64_t least = std::min<std::int64_t>(2, waiting[i].output);
    waiting[i].output = std::max<std::int64_t>(least, std::llround(left * static_cast<double>(waiting[i].output)));
  }
  ServiceSetup full = setup;
  full.clients = std::nullopt;
  full.warmup_requests = 0;
  full.progress = nullptr;
  const ServiceOutcome outcome = simulate_service(waiting, full, seconds);
  if (outcome.stopped) return std::nullopt;
  std::vector<double> ends;
  for (const ServiceJob& job : outcome.jobs) ends.push_back(job.finished_s);
  std::ranges::sort(ends);
  // Whole batches, for equal requests come round together. The first fills the service, the last finds no queue.
  const auto parts = static_cast<std::size_t>(micro_batches_of(setup));
  const std::size_t filled = std::clamp<std::size_t>(outcome.counts.most_running * parts, 1, count / 3);
  const std::size_t last = (count / filled - 1) * filled;
  const double between = ends[last - 1] - ends[filled - 1];
  // Where all that is waiting is served at once, what it took from the start.
  if (between <= 0) return static_cast<double>(last) / ends[last - 1];
  return static_cast<double>(last - filled) / between;
}

ServiceStudy study_service(std::span<const ServiceRequest> requests, const ServiceSetup& setup,
                           std::optional<double> rate_per_s, const ServiceStepSeconds& seconds) {
  ServiceStudy study;
  study.outcome = simulate_service(requests, setup, seconds);
  if (!study.outcome->stopped) study.saturation_per_s = saturation_rate(requests, setup, seconds);
  if (!study.saturation_per_s) {
    study.outcome.reset();
    study.stopped = true;
    return study;
  }
  if (setup.clients) return study;
  study.offered_per_s = rate_per_s ? rate_per_s : recorded_rate(requests);
  if (!study.offered_per_s) return study;
  study.load_ratio = *study.offered_per_s / *study.saturation_per_s;
  const ServiceOutcome& outcome = *study.outcome;
  const double noise = rate_per_s ? 1 : recorded_noise(requests, outcome);
  const bool grows = queue_grows(outcome, noise);
  const bool behind = grows && outcome.requests_per_s < kKeepsUp * outcome.arrivals_per_s;
  if (*study.load_ratio >= 1) {
    study.stable = !rate_per_s && !grows;
  } else {
    study.stable = !(*study.load_ratio > kNearSaturation && behind);
  }
  if (study.stable) return study;
  study.reason =
      fmt::format("{:.4g} requests a second arrive, at most {:.4g} can be served: the queue grows without end",
                  *study.offered_per_s, *study.load_ratio >= 1 ? *study.saturation_per_s : outcome.requests_per_s);
  if (grows) study.queue_growth_per_s = growth_of(requests, outcome);
  return study;
}

}  // namespace moecast
