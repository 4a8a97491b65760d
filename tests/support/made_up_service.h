#pragma once
#include "sim/step/service_simulation.h"

namespace moecast {

/// Steps that all take as long.
inline ServiceStepSeconds constant(double seconds) {
  return [seconds](const ServiceStep&) { return seconds; };
}

/// 10 ms, 10 us a decode, 20 us a token of a prompt.
inline double made_up_step(const ServiceStep& step) { return 0.01 + 1e-5 * step.decodes + 2e-5 * step.prefill_tokens; }

/// One request at a time, one token each: a queue with one server.
inline ServiceSetup single_server() {
  ServiceSetup setup;
  setup.limits.sequences = 1;
  return setup;
}

}  // namespace moecast
