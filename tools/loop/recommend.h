#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/engine.h"
#include "sim/step/service_model.h"

namespace moecast {

/// What a service must do, and what may serve it.
struct ServiceGoals {
  double prompt = 1024;  ///< tokens
  double output = 1024;  ///< tokens
  std::optional<double> ttft_s;
  std::optional<double> tpot_s;
  std::int64_t fewest_gpus = 1;
  std::int64_t most_gpus = 8;
  std::vector<int> stages{1, 2, 4, 8};  ///< of a pipeline, to examine
  std::vector<int> contexts{1};         ///< context-parallel ranks, to examine
  int draft_tokens = 0;                 ///< that layers of multi-token prediction guess
  std::optional<double> acceptance{};   ///< of guesses, 0 to 1
  /// Goals must hold at the upper end of the 90 % interval, not in the median only.
  bool sure = false;
};

struct ServiceMachine {
  std::string name;
  std::string folder;
  std::optional<double> price_per_hour;  ///< of one GPU
};

/// One deployment under one load.
struct ServiceCandidate {
  std::string machine;
  Deployment deployment;
  int gpus = 1;
  std::int64_t concurrency = 1;  ///< requests in flight, all ranks
  double ttft_s = 0, ttft_low_s = 0, ttft_high_s = 0;
  double tpot_s = 0, tpot_low_s = 0, tpot_high_s = 0;
  double memory_bytes = 0;  ///< of a rank
  double tokens_per_s = 0;  ///< generated, all GPUs
  double tokens_per_gpu_s = 0;
  std::optional<double> cost_per_million;  ///< generated tokens, in the unit of the price
  bool pareto = false;  ///< nothing else is at least as good in TPOT, tokens a GPU and GPUs, and better in one
};

struct Recommendation {
  std::vector<ServiceCandidate> feasible;       ///< the cheapest first
  std::map<std::string, std::int64_t> refused;  ///< reason -> candidates
  std::vector<std::string> notes;
  std::int64_t examined = 0;
};

/// Examines every combination of machine, GPUs (powers of two), pipeline stages, context-parallel ranks, tensor
/// parallelism (up to eight), replicas of attention, expert parallelism and concurrency (powers of two until memory
/// ends or a goal is missed).
/// @param asked  backend, formats and all-reduce of all of them. @param engines  folder. @throws InputError when a
/// profile cannot be read or no engine is described.
Recommendation recommend(const Architecture& architecture, const Deployment& asked,
                         const std::vector<ServiceMachine>& machines, const std::string& engines,
                         const ServiceGoals& goals);

}  // namespace moecast
