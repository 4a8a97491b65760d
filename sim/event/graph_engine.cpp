#include "sim/event/graph_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "models/core/error.h"
#include "sim/event/graph_links.h"

namespace moecast {
namespace {

/// Streams of hosts lie beside those of devices.
constexpr int kHostStream = 1000;

}  // namespace

double memory_bandwidth_of(const Profile& profile, int threads) {
  for (const std::string& name : {fmt::format("read_bandwidth_memory_{}_threads", threads),
                                  fmt::format("copy_bandwidth_{}_threads", threads), std::string("memory_bandwidth")}) {
    if (const HardwareQuantity* known = profile.find(name)) return known->value;
  }
  return 0;
}

EventGraph event_graph_of(const OperatorGraph& graph, std::span<const OperatorTime> times,
                          const GraphEngineOptions& options) {
  if (times.size() != graph.operators.size()) {
    throw InputError("operator graph", fmt::format("{} operators, {} times", graph.operators.size(), times.size()));
  }
  EventGraph events;
  std::optional<GraphLinks> links;
  if (options.network) links.emplace(events, *options.network);
  std::map<int, int> bus;                      // of a rank
  std::map<std::pair<int, int>, int> last;     // task of a (rank, stream)
  std::vector<int> task_of(times.size(), -1);  // of an operator
  std::vector<int> after;
  const auto append = [&](TaskKind kind, int rank, int stream, double seconds, std::span<const Demand> demands) {
    const auto chain = last.find({rank, stream});
    if (chain != last.end()) after.push_back(chain->second);
    return last[{rank, stream}] = events.add_task(kind, rank, stream, seconds, demands, after);
  };
  for (std::size_t i = 0; i < times.size(); ++i) {
    const Operator& op = graph.operators[i];
    after.clear();
    if (options.launch_s > 0 && op.kind != OperatorKind::host) {
      const int launch = append(TaskKind::launch, op.rank, kHostStream, options.launch_s * op.count, {});
      events.name_task(launch, "launch " + op.name);
      after.assign(1, launch);
    }
    for (const int earlier : op.depends_on) {
      if (earlier < 0 || static_cast<std::size_t>(earlier) >= i) {
        throw InputError(op.name, fmt::format("depends on operator {}, which is not before it", earlier));
      }
      after.push_back(task_of[static_cast<std::size_t>(earlier)]);
    }
    const double latency = times[i].latency.value();
    const double memory = times[i].memory.value();
    Demand demand;
    std::array<int, 1> resource{};
    const bool shares = options.memory_bandwidth > 0 && memory > 0 && latency > 0;
    if (shares) {
      const auto known = bus.find(op.rank);
      resource[0] = known != bus.end() ? known->second
                                       : bus[op.rank] = events.add_resource(fmt::format("rank {} memory", op.rank),
                                                                            options.memory_bandwidth);
      demand.amount = std::min(memory, latency) * options.memory_bandwidth;
      demand.bound = demand.amount / latency;
      demand.resources = resource;
    }
    const TaskKind kind = task_kind(op.kind);
    if (links && kind != TaskKind::kernel && kind != TaskKind::launch) {
      const GraphLinks::Flow flow = links->flow(op, latency);
      task_of[i] = append(kind, op.rank, op.stream, flow.start_s, flow.demands);
    } else {
      task_of[i] = append(kind, op.rank, op.stream, shares ? 0 : latency,
                          shares ? std::span<const Demand>(&demand, 1) : std::span<const Demand>());
    }
    events.name_task(task_of[i], op.count > 1 ? fmt::format("{} x {:g}", op.name, op.count) : op.name);
  }
  return events;
}

}  // namespace moecast
