#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "sim/step/service_instance.h"

namespace moecast {

/// Prompts are computed on instances of their own; then their caches move to those that generate.
struct ServiceSplit {
  int prefill_instances = 1;
  int decode_instances = 1;
  double link_bytes_per_s = 0;  ///< out of one prefill instance; caches queue for it
  double bytes_per_token = 0;   ///< of the cache, all ranks of an instance
  double bytes_per_sequence = 0;
};

/// Stages of an instance. Its sequences are dealt to as many micro-batches, each with its share of the batch and of the
/// cache and with steps of its own, which pass the stages in the order in which they began.
struct ServicePipeline {
  int stages = 1;
  ServiceStepSeconds send{};  ///< from ServiceStep::stage to the next one, keeping both busy; empty: no time
};

/// A service and how it is asked.
struct ServiceSetup {
  ServiceLimits limits;  ///< of an instance
  ServicePipeline pipeline{};
  int instances = 1;                      ///< that share the requests; each request goes to the least loaded one
  std::optional<ServiceSplit> split{};    ///< instead of `instances`
  std::optional<std::int64_t> clients{};  ///< each sends its next request when one ends; arrival times are not read
  double front_s = 0;                     ///< of a request before it reaches the engine's queue: server, tokens, host
  std::size_t warmup_requests = 0;        ///< first ones, which latencies leave out
  std::optional<double> ttft_goal_s{};
  std::optional<double> tpot_goal_s{};
  const std::atomic<bool>* stop = nullptr;
  std::function<void(double)> progress{};  ///< share of requests that ended; may be empty
};

/// Seconds over requests.
struct ServiceQuantiles {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0;
};

/// Requests of one priority, after the warm-up.
struct ServiceClass {
  int priority = 0;
  std::size_t requests = 0;
  ServiceQuantiles ttft;
  std::optional<ServiceQuantiles> tpot;
  ServiceQuantiles end_to_end;
};

/// What happened. Rates and means over time are of the window from the end of the warm-up to the last arrival, or of
/// the whole run where that is shorter than half of it.
struct ServiceOutcome {
  bool stopped = false;  ///< by ServiceSetup::stop: nothing else is filled in
  ServiceCounts counts;  ///< of all instances
  std::size_t measured = 0;
  ServiceQuantiles ttft;                  ///< arrival to first token
  std::optional<ServiceQuantiles> tpot;   ///< time of an output token after the first; nullopt: one token each
  ServiceQuantiles end_to_end;            ///< arrival to last token
  ServiceQuantiles wait;                  ///< in the engine's queue, until the first step
  std::vector<ServiceClass> classes;      ///< highest priority first; empty where all are of one
  std::optional<double> transfer_mean_s;  ///< of a cache, split services
  std::optional<double> met_ratio;        ///< share of requests within all goals; nullopt: no goal
  double duration_s = 0;                  ///< first arrival to last token
  double window_s = 0;
  bool steady = false;                       ///< the window is not the whole run
  double requests_per_s = 0;                 ///< that ended
  double arrivals_per_s = 0;                 ///< that came; of the window too
  double output_tokens_per_s = 0;            ///< generated
  std::optional<double> kv_mean_ratio;       ///< blocks in use; nullopt: no limit
  std::optional<double> kv_most_ratio;       ///< of the fullest instance
  double utilisation_ratio = 0;              ///< time that instances execute steps
  double waiting_mean = 0;                   ///< requests that no instance has begun, or that were thrown out
  std::int64_t waiting_most = 0;             ///< of all instances
  double in_flight_mean = 0;                 ///< requests in the service
  double whole_run_in_flight_mean = 0;       ///< the same from first arrival to last token
  std::array<double, 4> waiting_quarters{};  ///< mean of `waiting` that arrivals find, by quarters of the arrivals
  std::vector<ServiceJob> jobs;              ///< a request each, in the order of arrival
};

/// Simulates requests, which must be sorted by arrival.
/// @throws InputError when there is no request, an arrival, prompt or output is out of range, a request is longer than
/// the cache of a micro-batch, or a step takes no positive time.
ServiceOutcome simulate_service(std::span<const ServiceRequest> requests, const ServiceSetup& setup,
                                const ServiceStepSeconds& seconds);

/// Requests a second that a service completes while others always wait: beyond, queues grow without end.
/// @param requests  repeated as often as needed. @return nullopt when stopped.
std::optional<double> saturation_rate(std::span<const ServiceRequest> requests, const ServiceSetup& setup,
                                      const ServiceStepSeconds& seconds);

}  // namespace moecast
