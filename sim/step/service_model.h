#pragma once
#include "models/plan/engine.h"
#include "sim/step/service_terms.h"

namespace moecast {

struct ServiceTimes {
  double tpot_s = 0;      ///< the decode step, what no table holds, and what prompts of others take of it
  double ttft_s = 0;      ///< mean, below saturation: host, the step that runs, the own prompt and those beside it
  double generating = 1;  ///< share of the time in flight in which a request generates
};

/// Of the others in flight, a request that generates meets the share that generate too: so many decode beside it, and
/// so many have had their prompt meanwhile.
ServiceTimes service_times(const ServiceTerms& terms, const EngineService& law);
/// Share of the time that prefill takes when requests follow each other without a pause: a queue grows from 1 on, and
/// the time to the first token is a queue's length long before.
double prefill_share(const ServiceTerms& terms, double tpot);

}  // namespace moecast
