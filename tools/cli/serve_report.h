#pragma once
#include <optional>
#include <string>
#include <vector>

#include "models/core/json.h"
#include "sim/step/served_model.h"
#include "sim/step/service_study.h"
#include "tools/cli/output.h"
#include "tools/cli/query_options.h"

namespace moecast {

/// One load on one deployment.
struct ServiceAnswer {
  Status status = Status::ok;  ///< of the deployment; whether it keeps up is `middle.stable`
  std::string reason;
  MemoryPerRank memory;
  std::int64_t cache_tokens = 0;         ///< of an instance
  int gpus = 1;                          ///< of all instances
  std::optional<double> price_per_hour;  ///< of a GPU
  ServiceStudy middle;
  std::optional<ServiceStudy> quick, slow;  ///< steps at the low and the high end of their interval; nullopt: not run
  std::vector<InputValue> inputs;
  std::vector<std::string> warnings;
};

/// Of a queue that lasts; nullptr where there is none, or one that grows.
const ServiceOutcome* outcome_of(const ServiceAnswer& answer);
std::string seconds_text(double seconds);
std::string rate_text(double rate);

/// ok, unstable, does_not_fit, outside_range.
std::string service_status(const ServiceAnswer& answer);
/// Every key of the JSON, whatever the status: what is not known is null.
Json service_json(const ServiceAnswer& answer);
/// Some lines and what was assumed.
std::string service_text(const ServiceAnswer& answer, Format format);
/// A line an answer.
Table service_table(const std::vector<ServiceAnswer>& answers);

}  // namespace moecast
