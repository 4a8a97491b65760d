#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "models/routing/assignment.h"
#include "models/routing/capacity.h"
#include "models/routing/expert_orders.h"
#include "models/routing/metrics.h"
#include "sim/event/expert_fetch.h"
#include "sim/event/layer_placements.h"
#include "sim/event/moe_layer.h"

namespace moecast {

/// One step's MoE layers over sampled routings: everything but the random numbers.
struct RoutingStudy {
  RoutingStudy(Topology asked, Topology reference) : topology(std::move(asked)), measured(std::move(reference)) {}

  Topology topology;
  /// The cluster whose uniform traffic the laws were measured on: no taper, no slow link.
  Topology measured;
  RoutingPolicy policy;
  std::vector<double> popularity;  ///< of the experts of every layer, in an order of its own
  /// Share of the tokens that each layer's experts have by their numbers, where layers differ (recorded, or drawn);
  /// empty: `popularity` of all layers.
  std::vector<std::vector<double>> layer_popularity;
  /// Where active, `popularity` is that of places (ordered_popularity), which experts take in an order that layers
  /// share in part and steps (samples) change; placements are of experts. Else placements hold each layer's order.
  OrderSeries orders;
  std::uint64_t orders_seed = 1;
  std::vector<Placement> placements;  ///< one a layer
  CapacitySpec capacity;              ///< of every part of a batch that is routed by itself
  TrafficOptions traffic;
  std::int64_t tokens = 0;  ///< of the step, all ranks together
  int layers = 1;
  int chunks = 1;       ///< parts of a layer's tokens that are pipelined
  int batches = 1;      ///< 2: two-batch overlap, halves of the tokens
  MoeLayerCosts costs;  ///< of one batch
  MoeEventOptions options;
  std::int64_t row_block = 1;   ///< rows that an expert computes are a multiple of this
  int shadowed_experts = 0;     ///< so many most popular experts are sent to every rank before each layer
  double expert_bytes = 0;      ///< weights of one expert, for that
  double background_share = 0;  ///< of every link's bandwidth that other traffic takes
  ExpertFetch fetch;            ///< of experts that ranks do not hold
};

/// Times of one sampled step.
struct StepSample {
  double step_s = 0;
  double dispatch_s = 0;  ///< sums over layers, waits for others left out
  double combine_s = 0;
  double kernels_s = 0;       ///< of the slowest rank of every layer
  double mean_kernels_s = 0;  ///< of the mean rank
  double row_imbalance = 0;   ///< rows of the fullest rank over the mean, mean of the layers
  double port_imbalance = 0;  ///< fullest link (of all rounds) over that of uniform routing, mean of the layers
  double distinct_ratio = 0;  ///< experts with at least one row, share of all
  double dropped_ratio = 0;   ///< rows that a capacity drops or keeps for a later step, share of all
  int contended_layers = 0;   ///< in which something was shared
  double used_experts = 0;    ///< with rows, of all ranks and layers
  double missed_experts = 0;  ///< of these, fetched
  double fetched = 0;         ///< by the rank that fetches most, sum of the layers
};

/// Simulates one sample after another; owns all buffers, so that a warm study does not allocate where nothing is
/// shared.
class RoutingSimulator {
 public:
  /// @throws InputError where numbers contradict each other.
  explicit RoutingSimulator(const RoutingStudy& study);
  /// Sees the graph of each layer (once the graph of all layers, where batches overlap) and its times.
  using Observer = std::function<void(const EventGraph&, const EventTimes&)>;
  /// Deterministic for (seed, sample).
  StepSample run(std::uint64_t seed, std::uint64_t sample, const Observer& observer = {});
  /// Adds a layer whose routing was recorded to a step. Layers may come in any order.
  /// @param assignment  of all tokens of the step. @throws InputError for another number of tokens, or where batches
  /// overlap.
  void add_recorded(int layer, const Assignment& assignment, StepSample& sample, const Observer& observer = {});

 private:
  /// Limits, counts and loads what `assignment_` holds.
  void take(int layer, std::int64_t tokens, MoeTraffic& out, StepSample& sample);
  [[nodiscard]] const std::vector<double>& popularity_of(int layer) const {
    return study_.layer_popularity.empty() ? study_.popularity
                                           : study_.layer_popularity[static_cast<std::size_t>(layer)];
  }
  void take_fetched(int layer, MoeTraffic& out, StepSample& sample);
  void simulate_layer(int layer, StepSample& sample, const Observer& observer);
  void add_imbalance(StepSample& sample) const;
  void finish(StepSample& sample, const Observer& observer);

  const RoutingStudy& study_;
  EventGraph graph_;
  NetworkPorts ports_;
  double uniform_bound_s_;
  std::unique_ptr<MoeEvents> events_;
  /// Of layer l the l-th, or the only one.
  [[nodiscard]] Router& router(int layer) {
    return routers_[routers_.size() == 1 ? 0 : static_cast<std::size_t>(layer)];
  }
  std::vector<Router> routers_;
  std::optional<ExpertOrders> orders_;
  std::optional<FetchDraw> fetch_;
  bool replays_ = false;                 ///< recorded steps, one after another
  std::vector<std::uint64_t> recorded_;  ///< steps of each layer so far
  bool traffic_by_node_ = false;
  std::vector<TrafficCounter> counters_;  ///< one a layer
  std::vector<int> owners_;               ///< of shadowed experts, layer by layer
  std::vector<double> busy_;
  Assignment assignment_;
  Traffic traffic_;
  std::vector<MoeTraffic> parts_;
  EventTimes times_;
};

/// Seconds of the fullest link for uniform routing that is exchanged as the law was measured (all ranks with all at
/// once, or gathered from all): the mean of draws with a fixed seed.
double uniform_bound_s(const RoutingStudy& study);

/// Samples 0..samples-1 on so many threads: the same for any number of threads.
/// @param progress  called with the number of finished samples, one call at a time; may be empty.
/// @throws what a sample throws; InterruptedError is the caller's to make through `stop`.
std::vector<StepSample> run_study(const RoutingStudy& study, std::uint64_t seed, int samples, int threads,
                                  const std::function<void(int done)>& progress = {},
                                  const std::atomic<bool>* stop = nullptr);

}  // namespace moecast
