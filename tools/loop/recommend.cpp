#include "tools/loop/recommend.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "models/core/error.h"
#include "models/plan/cache_room.h"
#include "models/plan/context_limit.h"
#include "models/plan/deployment_rules.h"
#include "models/plan/memory.h"
#include "models/plan/speculation.h"
#include "sim/step/served_model.h"
#include "sim/step/step_pipeline.h"

namespace moecast {
namespace {

constexpr int kMostTensorRanks = 8;
constexpr std::int64_t kMostConcurrency = 1 << 16;
/// The largest load that meets the goals is found within this part of it.
constexpr std::int64_t kLoadSteps = 16;
constexpr double kManyPrompts = 0.25;  ///< of a step, in the mean

/// Every way of an engine to use so many GPUs as one instance.
std::vector<Deployment> deployments_of(int gpus, bool experts, const EngineSpec& engine, Deployment common,
                                       const ServiceGoals& goals) {
  std::vector<Deployment> all;
  common.extra_layers = engine.pipeline.extra_layers;
  for (const int pp : goals.stages) {
    for (const int cp : goals.contexts) {
      if (gpus % (pp * cp) != 0) continue;
      const int ranks = gpus / pp;
      for (int tp = 1; tp <= std::min(ranks / cp, kMostTensorRanks); tp *= 2) {
        Deployment d = common;
        d.pp = pp;
        d.cp = cp;
        d.tp = tp;
        d.dp = ranks / (cp * tp);
        if (!experts && d.dp > 1) continue;  // replicas of a dense model are instances of their own
        for (int ep = 1; ep <= (experts ? ranks : 1); ep *= 2) {
          if (!engine.mixed_expert_parallelism && ep != 1 && ep != ranks) continue;
          d.ep = ep;
          d.moe_tp = ranks / ep;
          all.push_back(d);
        }
      }
    }
  }
  return all;
}

class Search {
 public:
  Search(const Architecture& architecture, const ServiceGoals& goals) : architecture_(architecture), goals_(goals) {}

  void examine(const ServiceMachine& machine, const KernelCalibration& kernels, double capacity,
               const EngineSpec& engine, const Deployment& deployment) {
    if (const std::string cut = not_offered(architecture_, deployment, engine); !cut.empty()) return refuse(cut);
    if (!architecture_.encoder.empty()) return refuse("services of models with an encoder are not supported yet");
    if (const std::string problem =
            beyond_context(architecture_, static_cast<std::int64_t>(goals_.prompt + goals_.output));
        !problem.empty()) {
      return refuse(problem);
    }
    std::optional<StepPipeline> model;
    std::vector<DraftPass> drafts;
    try {
      Workload generates;
      generates.acceptance = goals_.acceptance;
      require_drafts(architecture_, deployment, generates);
      model = make_step_pipeline(architecture_, deployment, engine, kernels);
      drafts = make_draft_passes(architecture_, deployment, engine, kernels);
      if (const auto missing = model->not_executed(); !missing.empty()) return refuse(missing.front());
      for (const std::string& note : model->notes()) notes_.insert(machine.name + ": " + note);
    } catch (const InputError& error) {
      return refuse(error.where() + " " + error.problem());
    }
    const MemoryBreakdown beside = memory_beside_cache(architecture_, deployment, ServedLoad().batched_tokens);
    const Steps steps{*model, drafts, beside.total().value(), cache_room(engine, capacity, kUsableMemory, beside)};
    // Requests a replica of attention: doubled while goals are met, then halfway between the last two.
    std::int64_t met = 0;
    std::int64_t missed = std::min(kMostConcurrency / deployment.dp, ServedLoad().sequences) + 1;
    for (std::int64_t requests = 1; requests < missed;) {
      ++result_.examined;
      ServiceCandidate candidate;
      const std::string problem = try_load(machine, steps, deployment, requests * deployment.dp, candidate);
      if (problem.empty()) {
        met = requests;
        result_.feasible.push_back(candidate);
      } else {
        if (met == 0) return refuse(machine.name + ": " + problem);
        missed = requests;
      }
      const bool doubles = 2 * met < missed;
      requests = doubles ? 2 * met : met + (missed - met) / 2;
      if (!doubles && missed - met <= std::max<std::int64_t>(1, met / kLoadSteps)) return;
    }
  }

  Recommendation finish() {
    std::vector<ServiceCandidate>& all = result_.feasible;
    std::ranges::sort(all, [](const ServiceCandidate& a, const ServiceCandidate& b) {
      const double cost_a = a.cost_per_million.value_or(1 / a.tokens_per_gpu_s);
      const double cost_b = b.cost_per_million.value_or(1 / b.tokens_per_gpu_s);
      return std::tie(cost_a, a.gpus, a.tpot_s) < std::tie(cost_b, b.gpus, b.tpot_s);
    });
    mark_front(all);
    if (std::ranges::any_of(all, [](const ServiceCandidate& c) { return c.deployment.pp * c.deployment.cp > 1; })) {
      notes_.insert(
          "pipeline stages and context parallelism: no service with them was measured; with four stages moecast serve "
          "says up to a quarter more TPOT");
    }
    if (std::ranges::any_of(all, [this](const ServiceCandidate& c) {
          return static_cast<double>(c.concurrency) > kManyPrompts * goals_.output;
        })) {
      notes_.insert(
          "many prompts a step: clients are taken to be out of step, as with lengths that vary; beside moecast serve "
          "--range-ratio 0.2 tokens/s lie within 15 %, and where outputs are 256 and longer TPOT within 20 %, with a "
          "TTFT "
          "up to half too short; equal requests fall in step, which a mean does not know");
    }
    result_.notes.assign(notes_.begin(), notes_.end());
    return std::move(result_);
  }

 private:
  /// Of a deployment.
  struct Steps {
    const StepPipeline& stages;
    std::span<const DraftPass> drafts;
    double beside;  ///< bytes of a rank that are not the cache's
    double room;    ///< bytes that are
  };

  void refuse(const std::string& why) { ++result_.refused[why]; }

  /// @return what is wrong with so many requests in flight; empty: goals are met.
  [[nodiscard]] std::string try_load(const ServiceMachine& machine, const Steps& model, const Deployment& deployment,
                                     std::int64_t concurrency, ServiceCandidate& candidate) const {
    const double cache = cache_of(deployment, concurrency);
    if (cache > model.room) return "memory does not fit";
    candidate = predict(machine, model, deployment, concurrency, model.beside + cache);
    const auto late = [&](const std::optional<double>& goal, double median, double high) {
      return goal && (goals_.sure ? high : median) > *goal;
    };
    if (late(goals_.tpot_s, candidate.tpot_s, candidate.tpot_high_s)) {
      return "TPOT too long, at one request a replica already";
    }
    if (late(goals_.ttft_s, candidate.ttft_s, candidate.ttft_high_s)) {
      return "TTFT too long, at one request a replica already";
    }
    return "";
  }

  /// Of whole requests, in bytes of a rank.
  [[nodiscard]] double cache_of(const Deployment& deployment, std::int64_t concurrency) const {
    Workload held;
    held.batch = concurrency;
    held.context = static_cast<std::int64_t>(goals_.prompt + goals_.output) - 1;
    return memory_per_rank(architecture_, deployment, held).kv_cache.value();
  }

  [[nodiscard]] ServiceCandidate predict(const ServiceMachine& machine, const Steps& model,
                                         const Deployment& deployment, std::int64_t concurrency, double memory) const {
    const auto in_flight = static_cast<double>(concurrency);
    ServiceLoad load{goals_.prompt, goals_.output, in_flight};
    load.acceptance = goals_.acceptance.value_or(0);
    const ServiceTerms terms = model.drafts.empty() ? service_terms(model.stages, load)
                                                    : service_terms(model.stages.front(), load, model.drafts);
    const EngineSpec& engine = model.stages.front().engine();
    ServiceCandidate c;
    c.machine = machine.name;
    c.deployment = deployment;
    c.gpus = stage_ranks(deployment) * deployment.pp;
    c.concurrency = concurrency;
    c.memory_bytes = memory;
    const ServiceTimes times = service_times(terms, engine.service);
    c.tpot_s = times.tpot_s;
    c.ttft_s = times.ttft_s;
    const double tpot_doubt = terms.decode_assumed_s / c.tpot_s;
    const double ttft_doubt = (terms.prefill_assumed_s + terms.decode_assumed_s) / c.ttft_s;
    c.tpot_low_s = c.tpot_s * std::exp(-engine.tpot_interval[0] - tpot_doubt);
    c.tpot_high_s = c.tpot_s * std::exp(engine.tpot_interval[1] + tpot_doubt);
    c.ttft_low_s = c.ttft_s * std::exp(-engine.ttft_interval[0] - ttft_doubt);
    c.ttft_high_s = c.ttft_s * std::exp(engine.ttft_interval[1] + ttft_doubt);
    // Little's law: requests in flight over the time that each stays.
    c.tokens_per_s = in_flight * goals_.output / (c.ttft_s + c.tpot_s * std::max(0.0, goals_.output - 1));
    c.tokens_per_gpu_s = c.tokens_per_s / c.gpus;
    if (machine.price_per_hour) c.cost_per_million = *machine.price_per_hour / 3600 / c.tokens_per_gpu_s * 1e6;
    return c;
  }

  /// By TPOT, then GPUs: a candidate is on the front when none before it gives more tokens a GPU on as few.
  static void mark_front(std::vector<ServiceCandidate>& all) {
    std::vector<std::size_t> order(all.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto value = [&](const ServiceCandidate& c) {
      return c.cost_per_million ? -*c.cost_per_million : c.tokens_per_gpu_s;
    };
    std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
      return std::tuple(all[a].tpot_s, all[a].gpus, -value(all[a])) <
             std::tuple(all[b].tpot_s, all[b].gpus, -value(all[b]));
    });
    std::map<int, double> best;  // value by GPUs, of all with a shorter TPOT
    for (const std::size_t i : order) {
      bool dominated = false;
      for (const auto& [gpus, reached] : best)
        dominated = dominated || (gpus <= all[i].gpus && reached >= value(all[i]));
      if (dominated) continue;
      all[i].pareto = true;
      const auto [found, fresh] = best.try_emplace(all[i].gpus, value(all[i]));
      if (!fresh) found->second = std::max(found->second, value(all[i]));
    }
  }

  const Architecture& architecture_;
  const ServiceGoals& goals_;
  Recommendation result_;
  std::set<std::string> notes_;
};

}  // namespace

Recommendation recommend(const Architecture& architecture, const Deployment& asked,
                         const std::vector<ServiceMachine>& machines, const std::string& engines,
                         const ServiceGoals& goals) {
  const EngineSpec engine = read_engine(engines, asked.backend);
  if (std::bit_ceil(static_cast<std::uint64_t>(goals.fewest_gpus)) > static_cast<std::uint64_t>(goals.most_gpus)) {
    throw InputError("gpus",
                     goals.fewest_gpus == goals.most_gpus ? std::to_string(goals.most_gpus) + " is no power of two"
                                                          : "no power of two is among them",
                     "instances of 1, 2, 4, 8, ... GPUs are examined");
  }
  Search search(architecture, goals);
  const bool experts = has_experts(architecture);
  Deployment common = asked;
  common.draft_tokens = goals.draft_tokens;
  for (const ServiceMachine& machine : machines) {
    const Profile profile = read_profile(machine.folder);
    const HardwareQuantity* capacity = profile.find("memory_capacity");
    if (capacity == nullptr) {
      throw InputError(machine.folder, "says no memory capacity", "add the quantity memory_capacity to profile.json");
    }
    const KernelCalibration kernels = read_kernel_calibration(machine.folder, profile.name);
    for (std::int64_t gpus = 1; gpus <= goals.most_gpus; gpus *= 2) {
      if (gpus < goals.fewest_gpus) continue;
      for (const Deployment& deployment : deployments_of(static_cast<int>(gpus), experts, engine, common, goals)) {
        search.examine(machine, kernels, capacity->value, engine, deployment);
      }
    }
  }
  return search.finish();
}

}  // namespace moecast
