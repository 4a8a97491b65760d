#include "sim/event/routing_study.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "models/core/error.h"
#include "sim/event/block_routing.h"
#include "sim/event/engine.h"

namespace moecast {
namespace {

constexpr int kUniformDraws = 8;
constexpr std::uint64_t kUniformSeed = 20240607;
/// Stream of the copies that are first in turn.
constexpr std::uint64_t kTurns = 0x7475726e73ULL;

/// A stream of numbers for each (seed, sample).
Random sample_random(std::uint64_t seed, std::uint64_t sample) {
  Random mix(seed);
  return Random(mix() ^ (sample * 0x9e3779b97f4a7c15ULL));
}

/// Every rank's tokens at every rank.
void gather_matrix(std::int64_t tokens, double row_bytes, ByteMatrix& out) {
  const int ranks = out.ranks();
  for (int from = 0; from < ranks; ++from) {
    // Token t starts on rank t * ranks / tokens.
    const std::int64_t own = ((from + 1) * tokens + ranks - 1) / ranks - (from * tokens + ranks - 1) / ranks;
    for (int to = 0; to < ranks; ++to) out.at(from, to) = static_cast<double>(own) * row_bytes;
  }
}

std::vector<int> by_popularity(std::span<const double> popularity) {
  std::vector<int> order(popularity.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return popularity[static_cast<std::size_t>(a)] > popularity[static_cast<std::size_t>(b)];
  });
  return order;
}

/// The most popular experts have a copy on every rank.
Placement with_shadows(const Placement& placement, std::span<const int> order, int shadowed) {
  std::vector<std::vector<std::int32_t>> ranks_of;
  for (int expert = 0; expert < placement.experts(); ++expert) {
    const auto ranks = placement.ranks_of(expert);
    ranks_of.emplace_back(ranks.begin(), ranks.end());
  }
  for (int i = 0; i < shadowed; ++i) {
    std::vector<std::int32_t>& ranks = ranks_of[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
    ranks.resize(static_cast<std::size_t>(placement.ranks()));
    std::iota(ranks.begin(), ranks.end(), 0);
  }
  return Placement(placement.ranks(), ranks_of);
}

void check(const RoutingStudy& study) {
  const auto need = [](bool holds, const std::string& what, const char* where = "routing study") {
    if (!holds) throw InputError(where, what);
  };
  need(study.layers >= 1 && study.placements.size() == static_cast<std::size_t>(study.layers),
       fmt::format("{} placements for {} layers", study.placements.size(), study.layers));
  need(study.layer_popularity.empty() || study.layer_popularity.size() == study.placements.size(),
       "a popularity of other layers");
  need(study.tokens >= 1, "a step needs at least one token");
  need(study.chunks >= 1 && study.chunks <= 64, fmt::format("{} chunks; 1 to 64 are possible", study.chunks));
  need(study.batches == 1 || study.batches == 2, "one batch, or two that overlap");
  need(study.batches == 1 || study.chunks == 1, "two overlapping batches are not cut into chunks as well");
  need(study.tokens >= study.chunks * study.batches,
       fmt::format("{} tokens cannot be cut into {} parts", study.tokens, study.chunks * study.batches),
       study.batches > 1 ? "batches" : "chunks");
  need(study.shadowed_experts >= 0 && study.shadowed_experts <= std::ssize(study.popularity),
       fmt::format("{} of {} experts cannot be shadowed", study.shadowed_experts, study.popularity.size()), "shadow");
  need(study.shadowed_experts == 0 || study.batches == 1, "shadowed experts are sent for one batch, not for two");
  need(study.shadowed_experts == 0 || !study.orders.active(),
       "shadowed experts are those of one order of popularity: no correlation and no drift beside them");
  if (study.fetch.active()) {
    const auto& touched = study.fetch.touched;
    const bool whole =
        std::ranges::all_of(touched, [&](const auto& of) { return of.size() == study.popularity.size(); });
    need(whole && (touched.size() == 1 || touched.size() == static_cast<std::size_t>(study.layers)),
         "experts that are fetched need their use");
    need(study.chunks == 1 && study.batches == 1, "experts are fetched for one batch, whole");
    need(!study.orders.active(),
         "experts are fetched by steps that choose alike: no correlation and no drift beside it");
    need(study.shadowed_experts == 0, "experts are fetched or shadowed, not both");
  }
  need(study.background_share >= 0 && study.background_share < 1,
       fmt::format("background traffic of {} of the links; at least 0 and below 1", study.background_share));
}

}  // namespace

double uniform_bound_s(const RoutingStudy& study) {
  EventGraph graph;
  NetworkPorts ports(graph, study.measured);
  const int experts = static_cast<int>(study.popularity.size());
  const std::vector<double> uniform(study.popularity.size(), 1.0);
  RoutingPolicy policy;
  policy.top_k = study.policy.top_k;
  Router router(policy, uniform);
  const int ranks = study.measured.ranks();
  TrafficOptions options = study.traffic;
  options.own_copy_first = false;
  if (sees_all_rows(study.options.exchange)) {
    ByteMatrix gathered(ranks);
    gather_matrix(study.tokens / study.batches, options.dispatch_row_bytes, gathered);
    const ExchangeRounds rounds = all_to_all_rounds(study.options.exchange, gathered, 1, study.options.tensor_ranks);
    return cost_of_rounds(ports, rounds, 1, 0).fullest_s;
  }
  if (study.options.exchange == ExchangeAlgorithm::hierarchical) options.deduplication = Deduplication::per_rank;
  TrafficCounter counter(
      experts % ranks == 0 ? contiguous_placement(experts, ranks) : round_robin_placement(experts, ranks), options);
  Assignment assignment;
  Traffic traffic;
  Random random(kUniformSeed);
  double sum = 0;
  for (int draw = 0; draw < kUniformDraws; ++draw) {
    router.draw(study.tokens / study.batches, random, assignment);
    counter.count(assignment, traffic);
    sum += ports.bound_s(traffic.all());
  }
  return sum / kUniformDraws;
}

RoutingSimulator::RoutingSimulator(const RoutingStudy& study)
    : study_((check(study), study)), ports_(graph_, study.topology), uniform_bound_s_(uniform_bound_s(study)) {
  if (study.layer_popularity.empty()) routers_.emplace_back(study.policy, study.popularity);
  for (const std::vector<double>& popularity : study.layer_popularity) routers_.emplace_back(study.policy, popularity);
  ports_.leave_to_others(graph_, study.background_share);
  if (study.orders.active()) {
    orders_.emplace(routers_.front().experts(), std::max(1, study.policy.groups), study.layers, study.orders,
                    study.orders_seed);
  }
  TrafficOptions traffic = study.traffic;
  traffic.own_copy_first = traffic.own_copy_first || study.shadowed_experts > 0;
  traffic_by_node_ = traffic.deduplication == Deduplication::per_node;
  if (!traffic_by_node_) traffic.ranks_per_node = study.topology.ranks();
  for (int layer = 0; layer < study.layers; ++layer) {
    const Placement& placement = study.placements[static_cast<std::size_t>(layer)];
    const std::vector<int> order = by_popularity(popularity_of(layer));
    for (int i = 0; i < study.shadowed_experts; ++i) {
      owners_.push_back(placement.ranks_of(order[static_cast<std::size_t>(i)]).front());
    }
    counters_.emplace_back(
        study.shadowed_experts > 0 ? with_shadows(placement, order, study.shadowed_experts) : placement, traffic);
  }
  MoeEventOptions options = study.options;
  if (study.fetch.active()) {
    fetch_.emplace(study.fetch, study.placements);
    options.host_bandwidth = study.fetch.bandwidth;
    options.fetch_start_s = study.fetch.start_s;
    options.fetch_bytes = study.fetch.expert_bytes;
    options.fetch_ahead = study.fetch.overlap == FetchOverlap::layer;
  }
  events_ = std::make_unique<MoeEvents>(graph_, ports_, study.topology.ranks(), options, uniform_bound_s_);
  parts_.resize(static_cast<std::size_t>(std::max(study.chunks, study.batches)));
  recorded_.assign(static_cast<std::size_t>(study.layers), 0);
}

void RoutingSimulator::take(int layer, std::int64_t tokens, MoeTraffic& out, StepSample& sample) {
  const double parts = static_cast<double>(study_.layers) * study_.chunks * study_.batches;
  const auto slots = capacity_slots(study_.capacity, tokens, study_.policy.top_k, routers_.front().experts());
  if (slots) {
    const auto asked = static_cast<double>(assignment_.expert.size());
    const CapacityOutcome outcome =
        limit_assignment(assignment_, *slots, overflow_of(study_.capacity), popularity_of(layer));
    if (asked > 0) sample.dropped_ratio += static_cast<double>(outcome.dropped + outcome.queued) / asked / parts;
  }
  if (orders_) {
    const std::span<const std::int32_t> order = orders_->at(layer);
    for (std::int32_t& expert : assignment_.expert) expert = order[static_cast<std::size_t>(expert)];
  }
  TrafficCounter& counter = counters_[static_cast<std::size_t>(layer)];
  counter.count(assignment_, traffic_);
  const int ranks = counter.placement().ranks();
  if (sees_all_rows(study_.options.exchange)) {
    if (out.dispatch.ranks() != ranks) out.dispatch = ByteMatrix(ranks);
    gather_matrix(tokens, study_.traffic.dispatch_row_bytes, out.dispatch);
  } else if (traffic_by_node_) {
    out.dispatch = traffic_.all();
  } else {
    std::swap(out.dispatch, traffic_.inside);  // counted as one node: all of it
  }
  out.loads.assign(static_cast<std::size_t>(ranks), {});
  double touched = 0;
  for (int expert = 0; expert < counter.placement().experts(); ++expert) {
    const auto copies = counter.placement().ranks_of(expert);
    const double rows = traffic_.rows_per_expert[static_cast<std::size_t>(expert)];
    if (rows > 0) ++touched;
    // Padded to its capacity, an expert computes empty slots too.
    const double computed = slots && study_.capacity.pad ? static_cast<double>(*slots) : rows;
    if (computed <= 0) continue;
    const double share = computed / static_cast<double>(copies.size());
    const auto block = static_cast<double>(study_.row_block);
    const double each = block > 1 ? std::ceil(share / block) * block : share;
    for (const std::int32_t rank : copies) {
      RankLoad& load = out.loads[static_cast<std::size_t>(rank)];
      load.rows += each;
      load.distinct += std::min(1.0, share);
      load.fullest = std::max(load.fullest, each);
    }
  }
  double fullest = 0;
  double total = 0;
  for (const RankLoad& load : out.loads) {
    fullest = std::max(fullest, load.rows);
    total += load.rows;
  }
  if (total > 0) sample.row_imbalance += fullest * ranks / total / parts;
  if (fetch_) take_fetched(layer, out, sample);
  sample.distinct_ratio += touched / counter.placement().experts() / parts;
}

void RoutingSimulator::take_fetched(int layer, MoeTraffic& out, StepSample& sample) {
  if (replays_) {
    fetch_->replay(layer, traffic_.rows_per_expert, out.fetched);
  } else {
    fetch_->draw(layer, traffic_.rows_per_expert, out.fetched);
  }
  for (const RankLoad& load : out.loads) sample.used_experts += load.distinct;
  for (const int count : out.fetched) sample.missed_experts += count;
  sample.fetched += *std::ranges::max_element(out.fetched);
}

void RoutingSimulator::finish(StepSample& sample, const Observer& observer) {
  if (!schedule_alone(graph_, times_)) {
    const EventGraph* one = &graph_;
    times_ = std::move(simulate_events(std::span(&one, 1)).front());
    ++sample.contended_layers;
  }
  if (observer) observer(graph_, times_);
  const int ranks = study_.topology.ranks();
  busy_.assign(static_cast<std::size_t>(ranks), 0);
  double common = 0;
  double end = 0;
  for (int task = 0; task < graph_.tasks(); ++task) {
    const auto at = static_cast<std::size_t>(task);
    const double time = times_.end_s[at] - times_.start_s[at];
    switch (graph_.kind(task)) {
      case TaskKind::dispatch: sample.dispatch_s += time; break;
      case TaskKind::combine: sample.combine_s += time; break;
      case TaskKind::kernel:
        if (graph_.rank(task) < 0) {
          common += time;
        } else {
          busy_[static_cast<std::size_t>(graph_.rank(task))] += time;
        }
        break;
      default: break;
    }
    end = std::max(end, times_.end_s[at]);
  }
  sample.step_s += end;
  sample.kernels_s += common + *std::ranges::max_element(busy_);
  sample.mean_kernels_s += common + std::accumulate(busy_.begin(), busy_.end(), 0.0) / ranks;
}

StepSample RoutingSimulator::run(std::uint64_t seed, std::uint64_t index, const Observer& observer) {
  Random random = sample_random(seed, index);
  StepSample sample;
  const int parts = std::max(study_.chunks, study_.batches);
  const bool batches = study_.batches > 1;
  if (orders_) orders_->go_to(static_cast<std::int64_t>(index));
  // A stream of its own: the same routings with and without.
  if (fetch_) fetch_->seed(sample_random(seed ^ 0x6665746368ULL, index)());
  Random turns = sample_random(seed ^ kTurns, index);
  if (batches) events_->clear(study_.batches);
  for (int layer = 0; layer < study_.layers; ++layer) {
    counters_[static_cast<std::size_t>(layer)].start_turns(turns);
    for (int part = 0; part < parts; ++part) {
      const std::int64_t tokens = study_.tokens * (part + 1) / parts - study_.tokens * part / parts;
      router(layer).draw(tokens, random, assignment_);
      take(layer, tokens, parts_[static_cast<std::size_t>(part)], sample);
    }
    if (batches) {
      events_->add_layer_of_batches(study_.costs, parts_);
      continue;
    }
    simulate_layer(layer, sample, observer);
  }
  if (batches) {
    add_imbalance(sample);
    finish(sample, observer);
  }
  return sample;
}

/// Of the dispatches since the graph was cleared.
void RoutingSimulator::add_imbalance(StepSample& sample) const {
  if (uniform_bound_s_ <= 0) return;
  sample.port_imbalance += events_->dispatch_bound_s() / (uniform_bound_s_ * study_.batches * study_.layers);
}

void RoutingSimulator::simulate_layer(int layer, StepSample& sample, const Observer& observer) {
  events_->clear();
  for (int i = 0; i < study_.shadowed_experts; ++i) {
    const auto at = static_cast<std::size_t>(layer * study_.shadowed_experts + i);
    events_->add_weights(owners_[at], study_.expert_bytes, study_.costs.dispatch_start_s);
  }
  events_->add_layer(study_.costs, parts_);
  add_imbalance(sample);
  finish(sample, observer);
}

void RoutingSimulator::add_recorded(int layer, const Assignment& assignment, StepSample& sample,
                                    const Observer& observer) {
  if (study_.batches > 1) {
    throw InputError("load", "a recorded routing is simulated layer by layer; overlapping batches span layers",
                     "--batches 1");
  }
  if (orders_) {
    throw InputError("load", "a recorded routing has the correlation and the drift that it has",
                     "leave out --correlation and --drift");
  }
  if (static_cast<std::int64_t>(assignment.tokens()) != study_.tokens) {
    throw InputError("load",
                     fmt::format("a recorded step of {} tokens; {} are asked for", assignment.tokens(), study_.tokens));
  }
  replays_ = true;
  // By the layer's own windows: files hold them layer after layer or step after step.
  Random turns =
      sample_random(kTurns ^ static_cast<std::uint64_t>(layer), recorded_[static_cast<std::size_t>(layer)]++);
  counters_[static_cast<std::size_t>(layer)].start_turns(turns);
  for (int part = 0; part < study_.chunks; ++part) {
    const auto begin = static_cast<std::size_t>(study_.tokens * part / study_.chunks);
    const auto end = static_cast<std::size_t>(study_.tokens * (part + 1) / study_.chunks);
    assignment_.experts = assignment.experts;
    assignment_.expert.assign(assignment.expert.begin() + assignment.first[begin],
                              assignment.expert.begin() + assignment.first[end]);
    assignment_.first.assign(assignment.first.begin() + static_cast<std::ptrdiff_t>(begin),
                             assignment.first.begin() + static_cast<std::ptrdiff_t>(end) + 1);
    for (std::uint32_t& first : assignment_.first) first -= assignment.first[begin];
    take(layer, static_cast<std::int64_t>(end - begin), parts_[static_cast<std::size_t>(part)], sample);
  }
  simulate_layer(layer, sample, observer);
}

std::vector<StepSample> run_study(const RoutingStudy& study, std::uint64_t seed, int samples, int threads,
                                  const std::function<void(int done)>& progress, const std::atomic<bool>* stop) {
  if (samples < 1) throw InputError("samples", "at least one is needed");
  std::vector<StepSample> results(static_cast<std::size_t>(samples));
  std::atomic<int> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  int done = 0;
  const auto work = [&] {
    try {
      RoutingSimulator simulator(study);
      for (int i = next++; i < samples; i = next++) {
        if (stop != nullptr && stop->load()) return;
        results[static_cast<std::size_t>(i)] = simulator.run(seed, static_cast<std::uint64_t>(i));
        const std::scoped_lock lock(mutex);
        ++done;
        if (progress) progress(done);
      }
    } catch (...) {
      const std::scoped_lock lock(mutex);
      if (!failure) failure = std::current_exception();
      next = samples;
    }
  };
  {
    std::vector<std::jthread> pool;
    for (int t = 1; t < std::min(threads, samples); ++t) pool.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return results;
}

}  // namespace moecast
