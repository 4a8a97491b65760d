#pragma once
#include <map>
#include <span>
#include <string>

#include "sim/step/service_model.h"

namespace moecast {

struct MeasuredService {
  ServiceTerms terms;
  std::string engine;
  double ttft_s = 0;
  double tpot_s = 0;
};

/// One law an engine: all together near the usual values, then each near that. Engines with fewer than ten rows get
/// what all have in common.
std::map<std::string, EngineService> fit_services(std::span<const MeasuredService> measured);

}  // namespace moecast
