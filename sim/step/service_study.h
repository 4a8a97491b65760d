#pragma once
#include <optional>
#include <span>
#include <string>

#include "sim/step/service_simulation.h"

namespace moecast {

/// What a service does with a load, or that it cannot keep up.
struct ServiceStudy {
  bool stopped = false;  ///< nothing else is filled in
  bool stable = true;
  std::string reason;                        ///< empty where stable
  std::optional<double> saturation_per_s;    ///< requests that it completes while others always wait
  std::optional<double> offered_per_s;       ///< nullopt: clients wait for answers, or all come at once
  std::optional<double> load_ratio;          ///< offered over saturation
  std::optional<double> queue_growth_per_s;  ///< requests, where not stable; nullopt: too few to see it
  /// Latencies mean nothing where the queue grows without end: they are of so many requests only.
  std::optional<ServiceOutcome> outcome;
};

/// Simulates a load, and decides whether it can go on for ever: the offered rate against that of a service whose queue
/// is never empty, and, for recorded arrivals or close to saturation, the growth of the queue in the simulation.
/// @param rate_per_s  of a load that goes on for ever; nullopt: the arrivals are all there is.
/// @throws InputError as simulate_service.
ServiceStudy study_service(std::span<const ServiceRequest> requests, const ServiceSetup& setup,
                           std::optional<double> rate_per_s, const ServiceStepSeconds& seconds);

}  // namespace moecast
