#pragma once
#include <map>
#include <string>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/engine.h"
#include "sim/step/step_operators.h"
#include "tools/loop/strata.h"

namespace moecast {

/// Recorded steps of a server, predicted.
struct StepValidation {
  std::string hw_folder;
  std::string engines;  ///< folder
  std::string table;
  Architecture architecture;
  Deployment deployment;  ///< backend: engine and version
  /// Steps of another deployment, of which the nearest in tokens, sequences and cache is the trivial predictor
  /// "nearest"; empty: none.
  std::string reference;
  bool fit = false;  ///< host constants from this table instead of the engine's: judges nothing
};

struct StepValidationReport {
  std::vector<Stratum> strata;                   ///< "all", "decode", "mixed", "prefill"
  double run_ratio = 1;                          ///< predicted over measured time of the whole run
  std::map<std::string, double> segment_ratios;  ///< the same of its segments, where the table names any
  EngineHost host;                               ///< as used
  std::string host_source;
  double decode_interval = 1, prefill_interval = 1;  ///< with `fit`: what this log asks for
  std::map<std::string, std::int64_t> not_judged;
  StepOperators operators;
};

/// @throws InputError on a broken table, UsageError never.
StepValidationReport validate_steps(const StepValidation& request);

}  // namespace moecast
