#include "tools/loop/relaxation.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "models/core/error.h"
#include "models/plan/deployment_rules.h"
#include "models/plan/graph.h"

namespace moecast {
namespace {

struct Removal {
  const char* key;
  const char* title;
  bool Without::* flag;
};

constexpr std::array kRemovals{Removal{"all_to_all", "without all-to-all", &Without::all_to_all},
                               Removal{"memory_bandwidth", "without memory bandwidth", &Without::memory_bandwidth},
                               Removal{"routing_overhead", "without routing overhead", &Without::routing_overhead},
                               Removal{"expert_imbalance", "without imbalance of experts", &Without::expert_imbalance}};

/// Formats that kernels of experts and linear layers come in, smaller than what most models are stored in.
constexpr std::array kNarrow{DType::fp8, DType::fp8_block, DType::nvfp4};

struct Candidate {
  std::string key;
  std::string title;
  Deployment deployment;
};

std::string instead(const std::string& what, const std::string& wanted, const std::string& asked) {
  return what + " " + wanted + " instead of " + asked;
}

/// As it is typed.
std::string word_of(KernelStrategy strategy) {
  std::string word(to_string(strategy));
  std::ranges::replace(word, '_', '-');
  return word;
}

void add_split(const Deployment& asked, int tp, int dp, std::vector<Candidate>& all) {
  Deployment d = asked;
  d.tp = tp;
  d.dp = dp;
  d.moe_tp.reset();
  const auto text = [](const Deployment& one) { return std::to_string(one.tp) + " x " + std::to_string(one.dp); };
  all.push_back({"tp_dp", instead("tp x dp", text(d), text(asked)), d});
}

/// With nothing said of attention, each rank of the experts has a copy of it.
Deployment placed(const Relaxable& q) {
  Deployment d = q.deployment;
  if (q.gpu && stage_ranks(d) == 1) d.dp = d.ep;
  return d;
}

std::vector<Candidate> candidates_of(const Relaxable& q) {
  const Deployment asked = placed(q);
  std::vector<Candidate> all;
  if (!q.gpu) {
    for (const KernelStrategy strategy : {KernelStrategy::sorted_grouped, KernelStrategy::per_expert_loop,
                                          KernelStrategy::capacity_padded, KernelStrategy::dense_mask}) {
      if (strategy == asked.strategy) continue;
      Deployment d = asked;
      d.strategy = strategy;
      all.push_back({"strategy", instead("strategy", word_of(strategy), word_of(asked.strategy)), d});
    }
    return all;
  }
  const int ranks = stage_ranks(asked);
  if (asked.tp % 2 == 0) add_split(asked, asked.tp / 2, asked.dp * 2, all);
  if (asked.dp % 2 == 0) add_split(asked, asked.tp * 2, asked.dp / 2, all);
  if (has_experts(q.architecture)) {
    for (const int ep : {1, ranks}) {
      if (ep == asked.ep || (ep == 1 && ranks == 1)) continue;
      Deployment d = asked;
      d.ep = ep;
      d.moe_tp.reset();
      all.push_back({"ep", instead("ep", std::to_string(ep), std::to_string(asked.ep)), d});
    }
  }
  const DType stored = asked.dtype.value_or(q.architecture.dtype);
  for (const DType dtype : kNarrow) {
    if (bytes_per_weight(dtype) >= bytes_per_weight(stored)) continue;
    Deployment d = asked;
    d.dtype = dtype;
    all.push_back({"dtype", instead("weights in", std::string(to_string(dtype)), std::string(to_string(stored))), d});
  }
  return all;
}

int ranks_of(const Deployment& d) { return stage_ranks(d) * d.pp; }

/// A kernel of another format stands for one that nobody measured: that says nothing of the format.
bool has_stand_in(const Prediction& prediction) {
  return std::ranges::any_of(prediction.warnings,
                             [](const std::string& text) { return text.find("stands for it") != std::string::npos; });
}

}  // namespace

std::vector<Relaxation> relax(const Relaxable& q) {
  std::vector<Relaxation> all;
  for (const Removal& removal : kRemovals) {
    Without without = q.without;
    without.*removal.flag = true;
    all.push_back({Relaxation::Kind::factor, removal.key, removal.title, ranks_of(placed(q)),
                   q.predictor.predict(q.architecture, q.deployment, q.workload, without)});
  }
  for (Candidate& candidate : candidates_of(q)) {
    try {
      Prediction prediction = q.predictor.predict(q.architecture, candidate.deployment, q.workload, q.without);
      if (!prediction.latency || (candidate.key == "dtype" && has_stand_in(prediction))) continue;
      all.push_back({Relaxation::Kind::change, std::move(candidate.key), std::move(candidate.title),
                     ranks_of(candidate.deployment), std::move(prediction)});
    } catch (const InputError&) {
      continue;  // the model is not divided that way
    }
  }
  return all;
}

const Relaxation* most_helpful(std::span<const Relaxation> relaxations, Relaxation::Kind kind,
                               const Prediction& asked) {
  const Relaxation* best = nullptr;
  for (const Relaxation& one : relaxations) {
    if (one.kind != kind || !one.prediction.latency || !asked.latency) continue;
    const Seconds least = best != nullptr ? *best->prediction.latency : *asked.latency;
    if (*one.prediction.latency < least) best = &one;
  }
  return best;
}

}  // namespace moecast
