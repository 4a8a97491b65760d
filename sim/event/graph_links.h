#pragma once
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "hwprofiles/cluster.h"
#include "models/plan/deployment.h"
#include "models/plan/operator.h"
#include "sim/event/event_graph.h"

namespace moecast {

/// Collectives as traffic over links, which they share with each other and with others. Every rank executes the graph.
struct GraphNetwork {
  Topology topology;      ///< of all ranks
  Deployment deployment;  ///< which ranks a collective joins
  /// So many ranks as collectives were measured on: next to each other, nothing tapers, no link is slow.
  std::function<Topology(int ranks)> measured;
  std::function<double(const Operator&)> start_s;  ///< of one execution, before bytes flow; empty: 0
  double background_share = 0;                     ///< of every link's bandwidth that other traffic takes
};

/// Ranks [first, first + count) that execute an operator graph: all of a network, or a pipeline stage of it.
struct RankRange {
  int first = 0;
  int count = 1;
};

/// The links of a graph's network, and what collectives load them with.
class GraphLinks {
 public:
  /// Adds the links to the graph, less what others take of them. @param network  must outlive the object.
  GraphLinks(EventGraph& events, const GraphNetwork& network);

  /// Waits `start_s`, then serves the demands. The demands live until the next call.
  struct Flow {
    double start_s = 0;
    std::span<const Demand> demands;  ///< empty where nothing leaves its rank
  };
  /// All executions of an operator. @param latency_s  of all of them.
  Flow flow(const Operator& op, double latency_s) { return flow(op, latency_s, {0, ranks_}); }
  Flow flow(const Operator& op, double latency_s, const RankRange& ranks);
  /// Every rank of a stage to its like of another. @param latency_s, start_s  between neighbours, with and without
  /// bytes.
  Flow send(double bytes, double latency_s, double start_s, const RankRange& from, const RankRange& to);

 private:
  /// @param together_s  of the fullest link where the ranks lie next to each other.
  Flow stretched(std::span<const Transfer> transfers, double latency_s, double start_s, double together_s);
  double fullest_together(std::span<const Transfer> transfers, int ranks);

  struct Together {
    explicit Together(const Topology& topology) : ports(graph, topology) {}
    EventGraph graph;
    NetworkPorts ports;
  };
  const GraphNetwork& network_;
  NetworkPorts ports_;
  int ranks_;
  std::map<int, std::unique_ptr<Together>> together_;
};

/// What a picture calls the task of an operator.
TaskKind task_kind(OperatorKind kind);

}  // namespace moecast
