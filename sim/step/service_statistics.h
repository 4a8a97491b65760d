#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sim/step/service_simulation.h"

namespace moecast {

/// Integrals over time, and counts, since the beginning.
struct ServiceTotals {
  double time_s = 0;
  double in_flight = 0, waiting = 0, used_blocks = 0, busy = 0;  ///< times seconds
  double finished = 0, generated = 0, arrived = 0;
};

struct ServiceMean {
  double sum = 0;
  std::int64_t count = 0;
  void add(double value) {
    sum += value;
    ++count;
  }
};

/// Follows a simulation: what is true now, and its integrals.
class ServiceTally {
 public:
  double in_flight = 0, waiting = 0, used_blocks = 0, busy = 0;  ///< now
  double finished = 0, generated = 0;
  double instances = 1;
  double blocks = 0;  ///< of all caches; 0 = no limit
  std::int64_t waiting_most = 0;
  std::array<ServiceMean, 4> quarters;

  void begin(double now) { totals_.time_s = first_.time_s = now; }
  /// Time passes until `now`.
  void pass(double now);
  void open_window() { opened_ = snapshot(); }
  void close_window() { closed_ = snapshot(); }
  [[nodiscard]] ServiceTotals snapshot() const;
  [[nodiscard]] const ServiceTotals& first() const { return first_; }
  [[nodiscard]] const std::optional<ServiceTotals>& opened() const { return opened_; }
  [[nodiscard]] const std::optional<ServiceTotals>& closed() const { return closed_; }

 private:
  ServiceTotals totals_, first_;
  std::optional<ServiceTotals> opened_, closed_;
};

/// @param counts  of each micro-batch of each instance.
ServiceOutcome service_outcome(std::vector<ServiceJob> jobs, const ServiceSetup& setup, const ServiceTally& tally,
                               std::span<const ServiceCounts> counts);

/// Limits of one of an instance's micro-batches.
ServiceLimits micro_batch_limits(const ServiceSetup& setup);

/// @throws InputError as simulate_service.
void check_service(std::span<const ServiceRequest> requests, const ServiceSetup& setup);

}  // namespace moecast
