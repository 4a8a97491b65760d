#pragma once
#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "hwprofiles/serving_table.h"
#include "models/architecture/architecture.h"
#include "models/plan/engine.h"
#include "tools/loop/deployment_ranking.h"
#include "tools/loop/strata.h"

namespace moecast {

/// End-to-end measurements of served models, predicted.
struct ServingValidation {
  std::string table;
  std::string engines;                                            ///< folder
  std::string benchmarks;                                         ///< folder: how published benchmarks were run
  std::function<std::string(const std::string& system)> machine;  ///< folder of a profile; empty: none
  /// Architecture of a model as the table calls it; nullopt: not known.
  std::function<std::optional<Architecture>(const std::string& model)> model;
  /// Laws fitted to the rows whose group is another one: "model", "system" or "model,system"; empty: the engines' own.
  std::string leave_out;
  bool fit = false;  ///< laws fitted to all rows of this table: judges nothing
  /// Steps cost their kernels and what the host constants of the engine's file say of a layer, which were fitted to the
  /// logged steps of one model: nothing of served loads.
  bool host_law = false;
  std::function<void(double done)> progress;
};

/// ln(measured / predicted) of 90 % of the judged rows: how far below (positive) and above.
struct ServiceSpread {
  std::array<double, 2> tpot{}, ttft{};
};

struct ServingValidationReport {
  /// "tpot", "ttft", then each by model, system, engine, releases (replaced, defects, other) and guesses; "tpot every
  /// row".
  std::vector<Stratum> strata;
  std::vector<DeploymentRanking> rankings;  ///< by TPOT, of the clean rows
  /// The same, of runs that are both of current releases, both of replaced ones, or both of one with a reported defect.
  std::vector<DeploymentRanking> rankings_comparable;
  std::map<std::string, std::int64_t> not_judged;
  std::int64_t read = 0;
  std::int64_t unknown_runs = 0;              ///< rows of no benchmark whose settings are known
  std::map<std::string, EngineService> laws;  ///< with `fit`
  /// By engine, where it served several models: of one alone nobody knows what another is like. "": of all.
  std::map<std::string, ServiceSpread> spreads;
  std::vector<std::string> notes;
};

/// @throws InputError on a broken table or when no row can be judged, UsageError on an unknown group.
ServingValidationReport validate_serving(const ServingValidation& request);

}  // namespace moecast
