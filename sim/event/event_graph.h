#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/cluster.h"
#include "models/routing/byte_matrix.h"

namespace moecast {

/// Something of which concurrent work gets a share: a link in one direction, a memory bus, a host thread.
struct EventResource {
  std::string name;
  double capacity = 1;  ///< units a second: B/s of links and buses; 1 of what is held for seconds
  double others = 0;    ///< units a second that belong to nobody of the graph, beside `capacity`
};

/// What a task takes from resources: an amount that flows through all of its resources at once.
struct Demand {
  double amount = 0;                                       ///< bytes (or seconds, of a resource of capacity 1)
  double bound = std::numeric_limits<double>::infinity();  ///< rate that it can reach alone, units a second
  std::span<const int> resources;
};

enum class TaskKind { kernel, dispatch, combine, collective, transfer, launch };
std::string_view to_string(TaskKind kind);

/// What ranks do in one step, and what each piece waits for. Structure of arrays: clear it and fill it again without
/// allocation.
class EventGraph {
 public:
  /// @throws InputError unless capacity is finite and above zero.
  int add_resource(std::string name, double capacity);
  /// Others have so much of a resource for as long as the graph lasts: its tasks share the rest.
  /// @throws InputError unless 0 <= share < 1.
  void leave_to_others(int resource, double share);
  /// Adds a task: it starts when all of `after` have ended, waits `delay_s`, then serves its demands together.
  /// @param rank  -1: all ranks. @param stream  of the rank, for a picture.
  /// @throws InputError on a negative or infinite number, an unknown resource, or a task that is not older than this.
  int add_task(TaskKind kind, int rank, int stream, double delay_s, std::span<const Demand> demands,
               std::span<const int> after);
  /// Names are for pictures: tasks without one are called by their kind.
  void name_task(int task, std::string name);
  /// Keeps the resources.
  void clear_tasks();

  [[nodiscard]] int tasks() const { return static_cast<int>(delay_.size()); }
  [[nodiscard]] const std::vector<EventResource>& resources() const { return resources_; }
  [[nodiscard]] double delay_s(int task) const { return delay_[index(task)]; }
  [[nodiscard]] TaskKind kind(int task) const { return kind_[index(task)]; }
  [[nodiscard]] int rank(int task) const { return rank_[index(task)]; }
  [[nodiscard]] int stream(int task) const { return stream_[index(task)]; }
  [[nodiscard]] std::string_view name(int task) const;
  [[nodiscard]] std::span<const int> after(int task) const { return slice(after_, after_first_, task); }

  struct StoredDemand {
    double amount, bound;
    std::uint32_t first, count;  ///< into the list of resources
  };
  [[nodiscard]] std::span<const StoredDemand> demands(int task) const { return slice(demands_, demand_first_, task); }
  [[nodiscard]] std::span<const int> resources_of(const StoredDemand& demand) const {
    return std::span(demand_resources_).subspan(demand.first, demand.count);
  }
  /// Units a second that a demand reaches when nothing else runs.
  [[nodiscard]] double rate_alone(const StoredDemand& demand) const;

 private:
  static std::size_t index(int task) { return static_cast<std::size_t>(task); }
  template <typename Value>
  static std::span<const Value> slice(const std::vector<Value>& values, const std::vector<std::uint32_t>& first,
                                      int task) {
    return std::span(values).subspan(first[index(task)], first[index(task) + 1] - first[index(task)]);
  }

  std::vector<EventResource> resources_;
  std::vector<double> delay_;
  std::vector<TaskKind> kind_;
  std::vector<int> rank_, stream_;
  std::vector<std::uint32_t> after_first_{0}, demand_first_{0};
  std::vector<int> after_;
  std::vector<StoredDemand> demands_;
  std::vector<int> demand_resources_;
  std::vector<std::pair<int, std::string>> names_;
};

/// When each task started (its delay included) and ended, seconds.
struct EventTimes {
  std::vector<double> start_s, end_s;
  double makespan_s = 0;
  bool contended = false;  ///< some resource was shared, so that events were simulated
};

/// Bytes from one rank to another.
struct Transfer {
  int from = 0;
  int to = 0;
  double bytes = 0;
  friend bool operator==(const Transfer&, const Transfer&) = default;
};

/// Which rails traffic takes: rows to their experts and back those of the library that dispatches (RailChange of the
/// topology; the way back changes where the way there did), all else those of NCCL's sends, which change at the sender.
enum class Way { there, back, sent };

/// The links of a topology as resources, and traffic over them.
class NetworkPorts {
 public:
  /// Adds the links to the graph. @param efficiency  share of their bandwidth that payload reaches, in (0, 1].
  NetworkPorts(EventGraph& graph, const Topology& topology, double efficiency = 1);

  /// Port model: bytes that each link carries, one demand a link that carries any.
  /// @param way  back: every rank returns what it received. The spans live until the next call.
  std::span<const Demand> demands(const ByteMatrix& bytes, Way way = Way::there);
  /// The same of single transfers, which are sent.
  /// @throws InputError on a rank that the topology lacks, or a rank that no link reaches.
  std::span<const Demand> demands(std::span<const Transfer> transfers);
  /// Seconds of the fullest link of the last `demands`.
  [[nodiscard]] double fullest_s() const { return fullest_s_; }
  /// The same where no link is degraded: what laws know of.
  [[nodiscard]] double healthy_s() const { return healthy_s_; }
  /// Multiplies what the last `demands` returned.
  void rescale(double factor);
  /// Exact model: one demand a pair of ranks, through all links of its route.
  /// @param bytes  as they travel.
  std::span<const Demand> flows(const ByteMatrix& bytes, double scale = 1, Way way = Way::there);
  std::span<const Demand> flows(std::span<const Transfer> transfers, double scale = 1, Way way = Way::sent);
  /// Seconds until the fullest link is done: what `demands` take alone.
  double bound_s(const ByteMatrix& bytes, Way way = Way::there);
  /// Every link of the graph is left to others for `share` of its bandwidth; what `demands` take alone does not change.
  void leave_to_others(EventGraph& graph, double share) const;
  /// Seconds that a link of the topology takes over so many bytes.
  [[nodiscard]] double link_s(int link, double bytes) const {
    return bytes / (topology_.links()[static_cast<std::size_t>(link)].bandwidth * efficiency_);
  }
  /// Resource of a link of the topology.
  [[nodiscard]] int resource(int link) const { return first_ + link; }

 private:
  void load(const ByteMatrix& bytes, Way way);
  void load(std::span<const Transfer> transfers);
  std::span<const Demand> demands_of_loads();
  void check(const ByteMatrix& bytes) const;
  /// @throws InputError where there is none.
  [[nodiscard]] std::span<const int> route_of(const Transfer& transfer, Way way);
  [[nodiscard]] std::span<const int> route(int from, int to, Way way);

  /// Of all pairs, where ranks are few enough to keep them.
  struct Routes {
    Routes() = default;
    explicit Routes(const Topology& topology);
    std::vector<int> all;
    std::vector<std::uint32_t> first;
  };

  Topology topology_;
  std::optional<Topology> sender_topology_;  ///< rails change at the sender, where the dispatch's do not
  double efficiency_;
  int first_ = 0;
  double fullest_s_ = 0;
  double healthy_s_ = 0;
  std::vector<double> loads_;
  Routes there_, sender_;
  std::vector<int> scratch_;
  std::vector<Transfer> transfers_;
  std::vector<Demand> demands_;
  std::vector<int> demand_resources_;
};

}  // namespace moecast
