#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "profiler/mpi/plan.h"
#include "sim/event/host_ranks.h"
#include "tools/loop/mpi_runner.h"
#include "tools/loop/strata.h"

namespace moecast {

/// Expert parallelism over processes: probe, predict, execute.
struct EpValidation {
  Cluster cluster;
  int ranks = 0;
  int cases = 48;  ///< half of them all-to-all-v alone, half whole layers
  int repeats = 7;
  std::uint64_t seed = 1;
  MpiLauncher launcher;
  std::function<void(const std::string& stage, double done)> progress;
};

struct EpCase {
  MpiPoint point;
  Outcome outcome;
  std::map<std::string, double> phases;  ///< executed, of a layer: seconds of the rank that takes longest
};

struct EpValidationReport {
  std::string library;
  HostRanks law;
  int probes = 0;
  std::vector<Stratum> strata;  ///< "all", "all_to_all_v", "moe_layer", each by skew, layers by what they hold
  std::vector<EpCase> cases;
};

/// What the law is fitted to: exchanges of equal parts and between racks, experts, attention and local work on one rank
/// and on all.
MpiPlan ep_probes(const Cluster& cluster, int ranks, int repeats);
/// What is predicted: other sizes, other shapes, Zipf 0 to 1.5.
MpiPlan ep_cases(const EpValidation& request);

EpValidationReport validate_ep(const EpValidation& request);

/// Mean error of a stratum at most this: 8 % of all-to-all-v (15 % of one skew), 10 % of layers; 0: no bar.
double ep_bar(const std::string& stratum);

}  // namespace moecast
