#pragma once
#include <functional>
#include <span>
#include <vector>

#include "models/routing/rank_load.h"
#include "models/routing/traffic.h"
#include "sim/event/event_graph.h"
#include "sim/event/exchange.h"

namespace moecast {

/// Seconds of the pieces of one MoE layer, each as it is alone.
struct MoeLayerCosts {
  double before_s = 0;                               ///< attention and norms, the mean of all layers, on every rank
  double router_s = 0;                               ///< scores and selection, on every rank
  double shared_s = 0;                               ///< shared experts: beside dispatch, before a gather
  std::function<double(const RankLoad&)> experts_s;  ///< routed experts of a rank
  /// Bytes of memory that these read and write; may be empty: then nothing is said of the memory bus.
  std::function<double(const RankLoad&)> experts_bytes;
  double dispatch_start_s = 0;  ///< of a dispatch, before bytes flow
  double combine_start_s = 0;
  /// Whole dispatch (combine) with its start.
  /// @param imbalance  time of the fullest link over that of uniform routing on the cluster that was measured.
  std::function<double(double imbalance)> dispatch_s;
  std::function<double(double imbalance)> combine_s;
};

/// What one part of a layer's tokens moves and computes.
struct MoeTraffic {
  ByteMatrix dispatch{1};       ///< combine is the way back
  std::vector<RankLoad> loads;  ///< of each rank
  std::vector<int> fetched{};   ///< experts that each rank fetches from its host; empty: none
};

struct MoeEventOptions {
  /// Factor on the time of a rank's kernels; empty: 1 everywhere.
  std::vector<double> slowdown;
  /// Dispatch and combine in streams of their own, so that they share links; else they wait for each other.
  bool two_streams = false;
  /// A task a rank also where ranks do the same together: for pictures.
  bool every_rank = false;
  /// Of a rank, B/s; with `every_rank`, experts take their bytes from a bus of this bandwidth. 0: no bus.
  double memory_bandwidth = 0;
  ExchangeAlgorithm exchange = ExchangeAlgorithm::direct;  ///< of dispatch; combine is its way back
  int ranks_per_node = 1;                                  ///< of a hierarchical exchange
  int tensor_ranks = 1;                                    ///< that are one replica, of gather_reduce
  FlowModel flows = FlowModel::port;
  double round_s = 0;         ///< between two rounds of an exchange, on top of its law
  double host_bandwidth = 0;  ///< B/s of a rank's link to its host; 0: nothing is fetched
  double fetch_start_s = 0;   ///< of the copy of an expert
  double fetch_bytes = 0;     ///< of an expert
  bool fetch_ahead = false;   ///< of the next layer while one runs; else a rank computes when its experts are there
};

/// Layers of expert parallelism as tasks: what precedes them, route, dispatch, experts, combine.
///
/// Dispatch and combine are barriers: a rank goes on when all bytes have arrived. In the port model each link carries
/// the sum of what the matrix sends over it; in the exact one every pair of ranks takes its share of its route.
class MoeEvents {
 public:
  enum Stream { kCompute, kDispatch, kCombine, kFetch, kHost };

  /// @param uniform_bound_s  seconds of the fullest link for uniform routing (imbalance 1).
  MoeEvents(EventGraph& graph, NetworkPorts& ports, int ranks, MoeEventOptions options, double uniform_bound_s);
  /// Forgets all tasks, keeps memory. @param batches  independent batches whose layers alternate.
  void clear(int batches = 1);
  /// Appends a layer of a batch, its tokens split into parts that are pipelined: while the experts of one part run,
  /// the next part is dispatched. @param parts  bytes and loads of each part; fractions of dispatch_s by their bytes.
  void add_layer(const MoeLayerCosts& costs, std::span<const MoeTraffic> parts, int batch = 0);
  /// The same of several batches side by side: their computing alternates, their transfers fill each other's gaps.
  void add_layer_of_batches(const MoeLayerCosts& costs, std::span<const MoeTraffic> batches);
  /// Seconds of the fullest links of all dispatches since `clear`, had they nothing but bandwidth.
  [[nodiscard]] double dispatch_bound_s() const { return dispatch_bound_s_; }
  /// Weights of experts that one rank sends to all others before the layer that is added next (shadowed experts).
  void add_weights(int from, double bytes, double start_s);

 private:
  int compute(TaskKind kind, int rank, double seconds, const char* name, double bytes = 0);
  int exchange(TaskKind kind, const ByteMatrix& dispatched, double start_s, const std::function<double(double)>& cost,
               double share, int after);
  int exchange_in_rounds(TaskKind kind, const ByteMatrix& dispatched, double start_s,
                         const std::function<double(double)>& cost, double share, int stream);
  [[nodiscard]] double shared_before_s(const MoeLayerCosts& costs) const;
  [[nodiscard]] double shared_beside_s(const MoeLayerCosts& costs) const;
  int route(const MoeLayerCosts& costs, int batch);
  int experts(const MoeLayerCosts& costs, const MoeTraffic& part, int dispatched);
  int fetch(int rank, int experts, int after);

  EventGraph& graph_;
  NetworkPorts& ports_;
  int ranks_;
  MoeEventOptions options_;
  double uniform_bound_s_;
  double dispatch_bound_s_ = 0;
  std::vector<int> buses_;      ///< memory of each rank, where there is one
  std::vector<int> hosts_;      ///< link of each rank to its host, where there is one
  std::vector<int> computing_;  ///< last task of each rank's compute stream; -1: none
  std::vector<int> ready_;      ///< of each batch: what its next layer waits for
  int dispatching_ = -1;        ///< last dispatch, or last exchange where they share a stream
  int combining_ = -1;
  std::vector<int> after_;
};

}  // namespace moecast
