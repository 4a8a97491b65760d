#include "sim/event/moe_layer.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/core/error.h"

namespace moecast {

MoeEvents::MoeEvents(EventGraph& graph, NetworkPorts& ports, int ranks, MoeEventOptions options, double uniform_bound_s)
    : graph_(graph), ports_(ports), ranks_(ranks), options_(std::move(options)), uniform_bound_s_(uniform_bound_s) {
  if (!options_.slowdown.empty() && options_.slowdown.size() != static_cast<std::size_t>(ranks)) {
    throw InputError("slowdown", fmt::format("{} factors for {} ranks", options_.slowdown.size(), ranks));
  }
  for (const double factor : options_.slowdown) {
    if (!(factor > 0) || factor > 1e6) throw InputError("slowdown", fmt::format("a factor of {}", factor), "above 0");
  }
  if (options_.every_rank && options_.memory_bandwidth > 0) {
    for (int rank = 0; rank < ranks; ++rank) {
      buses_.push_back(graph_.add_resource(fmt::format("rank {} memory", rank), options_.memory_bandwidth));
    }
  }
  if (options_.host_bandwidth > 0) {
    for (int rank = 0; rank < ranks; ++rank) {
      hosts_.push_back(graph_.add_resource(fmt::format("rank {} host link", rank), options_.host_bandwidth));
    }
  }
  clear();
}

void MoeEvents::clear(int batches) {
  graph_.clear_tasks();
  computing_.assign(static_cast<std::size_t>(ranks_), -1);
  ready_.assign(static_cast<std::size_t>(batches), -1);
  dispatching_ = combining_ = -1;
  dispatch_bound_s_ = 0;
}

int MoeEvents::compute(TaskKind kind, int rank, double seconds, const char* name, double bytes) {
  const auto at = static_cast<std::size_t>(rank);
  if (const int last = computing_[at]; last >= 0) after_.push_back(last);
  const double factor = options_.slowdown.empty() ? 1 : options_.slowdown[at];
  const double time = seconds * factor;
  Demand demand;
  if (!buses_.empty() && bytes > 0 && time > 0) {
    demand.amount = std::min(bytes, time * options_.memory_bandwidth);
    demand.bound = demand.amount / time;
    demand.resources = std::span(&buses_[at], 1);
  }
  const bool shares = demand.amount > 0;
  const int task = graph_.add_task(kind, rank, kCompute, shares ? 0 : time,
                                   shares ? std::span<const Demand>(&demand, 1) : std::span<const Demand>(), after_);
  if (options_.every_rank) graph_.name_task(task, name);
  computing_[at] = task;
  return task;
}

/// Collectives wait in the engine's one stream: nothing computes beside a gather.
double MoeEvents::shared_before_s(const MoeLayerCosts& costs) const {
  return sees_all_rows(options_.exchange) ? costs.shared_s : 0;
}

double MoeEvents::shared_beside_s(const MoeLayerCosts& costs) const { return costs.shared_s - shared_before_s(costs); }

/// Kernels that take all ranks equally long are one task, unless a picture or a slow rank tells them apart.
int MoeEvents::route(const MoeLayerCosts& costs, int batch) {
  const int before = ready_[static_cast<std::size_t>(batch)];
  std::vector<int>& after = after_;
  const bool together = options_.slowdown.empty() && !options_.every_rank;
  if (together) {
    after.clear();
    if (before >= 0) after.push_back(before);
    for (const int last : computing_) {
      if (last >= 0 && last != before && (after.empty() || after.back() != last)) after.push_back(last);
    }
    const int task = graph_.add_task(TaskKind::kernel, -1, kCompute,
                                     costs.before_s + costs.router_s + shared_before_s(costs), {}, after);
    std::fill(computing_.begin(), computing_.end(), task);
    return task;
  }
  std::vector<int> routed;
  for (int rank = 0; rank < ranks_; ++rank) {
    after.clear();
    if (before >= 0) after.push_back(before);
    if (costs.before_s > 0) {
      compute(TaskKind::kernel, rank, costs.before_s, "attention and norms");
      after.clear();
    }
    routed.push_back(compute(TaskKind::kernel, rank, costs.router_s, "route"));
    if (shared_before_s(costs) > 0) {
      after.clear();
      routed.back() = compute(TaskKind::kernel, rank, costs.shared_s, "shared experts");
    }
  }
  return graph_.add_task(TaskKind::kernel, -1, kCompute, 0, {}, routed);
}

int MoeEvents::exchange(TaskKind kind, const ByteMatrix& dispatched, double start_s,
                        const std::function<double(double)>& cost, double share, int after) {
  int& last = kind == TaskKind::dispatch || !options_.two_streams ? dispatching_ : combining_;
  after_.clear();
  after_.push_back(after);
  if (last >= 0 && last != after) after_.push_back(last);
  const int stream = kind == TaskKind::dispatch ? kDispatch : kCombine;
  if (kind == TaskKind::dispatch && options_.exchange == ExchangeAlgorithm::all_reduce) {  // rows are there
    last = graph_.add_task(kind, -1, stream, 0, {}, after_);
    return last;
  }
  if (options_.exchange != ExchangeAlgorithm::direct) {
    last = exchange_in_rounds(kind, dispatched, start_s, cost, share, stream);
    return last;
  }
  const Way way = kind == TaskKind::combine ? Way::back : Way::there;
  std::span<const Demand> loads = ports_.demands(dispatched, way);
  const double bound = ports_.fullest_s();
  if (kind == TaskKind::dispatch) dispatch_bound_s_ += bound;
  if (bound <= 0) {  // nothing leaves its rank
    last = graph_.add_task(kind, -1, stream, ranks_ > 1 ? start_s * share : 0, {}, after_);
    return last;
  }
  // Alone it ends when the law says; links are filled in proportion. A degraded link takes as many times longer: the
  // law's better use of links by longer messages is none of its own.
  const double healthy = ports_.healthy_s();
  const double whole = cost(healthy / (share * uniform_bound_s_));
  const double flow = std::max(0.0, whole - start_s) * share;
  if (options_.flows == FlowModel::exact) {
    loads = ports_.flows(way == Way::back ? dispatched.transposed() : dispatched, flow / healthy, way);
  } else {
    ports_.rescale(flow / healthy);
  }
  last = graph_.add_task(kind, -1, stream, start_s, loads, after_);
  return last;
}

/// As one exchange, link by link: what the law says of the fullest links of all rounds together is shared out by bytes.
int MoeEvents::exchange_in_rounds(TaskKind kind, const ByteMatrix& dispatched, double start_s,
                                  const std::function<double(double)>& cost, double share, int stream) {
  const auto make = kind == TaskKind::combine ? way_back_rounds : all_to_all_rounds;
  const ExchangeRounds rounds = make(options_.exchange, dispatched, options_.ranks_per_node, options_.tensor_ranks);
  const RoundsCost links = cost_of_rounds(ports_, rounds, options_.ranks_per_node, 0);
  const double bound = links.fullest_s;
  if (kind == TaskKind::dispatch) dispatch_bound_s_ += bound;
  if (bound <= 0) return graph_.add_task(kind, -1, stream, ranks_ > 1 ? start_s * share : 0, {}, after_);
  // Whoever gathers all rows moves as many whatever the routing, and other bytes there than back.
  const bool even = options_.exchange == ExchangeAlgorithm::gather_reduce;
  const double whole = cost(even ? 1 : links.healthy_s / (share * uniform_bound_s_));
  const double flow = std::max(0.0, whole - start_s) * share;
  const std::vector<int> after = after_;
  // The law's own start holds the first round's, that of an all-gather all of its serial steps.
  const auto steps = static_cast<double>(rounds.size());
  const bool serial = sees_all_rows(options_.exchange);
  const double round_s = serial ? std::min(options_.round_s, start_s / steps) : options_.round_s;
  const double held = serial ? steps * round_s : round_s;
  return add_rounds(graph_, ports_, rounds, kind, stream, std::max(0.0, start_s - held), round_s,
                    flow / links.healthy_s, options_.flows, after);
}

/// Copies one after another over the rank's own link. @param after  -1: at once. @return the task; -1: nothing to
/// fetch.
int MoeEvents::fetch(int rank, int experts, int after) {
  if (experts == 0) return -1;
  Demand demand;
  demand.amount = experts * options_.fetch_bytes;
  demand.bound = options_.host_bandwidth;
  demand.resources = std::span(&hosts_[static_cast<std::size_t>(rank)], 1);
  after_.clear();
  if (after >= 0) after_.push_back(after);
  const int task = graph_.add_task(TaskKind::transfer, rank, kFetch, experts * options_.fetch_start_s,
                                   std::span<const Demand>(&demand, 1), after_);
  if (options_.every_rank) graph_.name_task(task, fmt::format("fetch {} experts", experts));
  return task;
}

int MoeEvents::experts(const MoeLayerCosts& costs, const MoeTraffic& part, int dispatched) {
  std::vector<int>& all = after_;
  const bool fetches = !part.fetched.empty();
  std::vector<int> fetched;
  for (int rank = 0; fetches && rank < ranks_; ++rank) {
    fetched.push_back(
        fetch(rank, part.fetched[static_cast<std::size_t>(rank)], options_.fetch_ahead ? -1 : dispatched));
  }
  const int first = graph_.tasks();
  for (int rank = 0; rank < ranks_; ++rank) {
    const RankLoad& load = part.loads[static_cast<std::size_t>(rank)];
    after_.clear();
    after_.push_back(dispatched);
    if (fetches && !options_.fetch_ahead && fetched[static_cast<std::size_t>(rank)] >= 0) {
      after_.push_back(fetched[static_cast<std::size_t>(rank)]);
    }
    compute(TaskKind::kernel, rank, load.rows > 0 ? costs.experts_s(load) : 0, "experts",
            costs.experts_bytes ? costs.experts_bytes(load) : 0);
  }
  all.clear();
  for (int task = first; task < graph_.tasks(); ++task) all.push_back(task);
  return graph_.add_task(TaskKind::kernel, -1, kCompute, 0, {}, all);
}

void MoeEvents::add_layer(const MoeLayerCosts& costs, std::span<const MoeTraffic> parts, int batch) {
  double total = 0;
  if (parts.size() > 1) {
    for (const MoeTraffic& part : parts) total += part.dispatch.total();
  }
  const double even = 1.0 / static_cast<double>(parts.size());
  const auto share = [&](const MoeTraffic& part) { return total > 0 ? part.dispatch.total() / total : even; };
  const int routed = route(costs, batch);
  int combined = -1;
  std::vector<int> computed;
  const auto combine = [&](std::size_t i) {
    combined = exchange(TaskKind::combine, parts[i].dispatch, costs.combine_start_s, costs.combine_s, share(parts[i]),
                        computed[i]);
  };
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const int sent = exchange(TaskKind::dispatch, parts[i].dispatch, costs.dispatch_start_s, costs.dispatch_s,
                              share(parts[i]), routed);
    if (i == 0 && shared_beside_s(costs) > 0) {
      for (int rank = 0; rank < ranks_; ++rank) {
        after_.assign(1, routed);
        compute(TaskKind::kernel, rank, costs.shared_s, "shared experts");
      }
    }
    computed.push_back(experts(costs, parts[i], sent));
    if (i > 0) combine(i - 1);
  }
  combine(parts.size() - 1);
  ready_[static_cast<std::size_t>(batch)] = combined;
}

void MoeEvents::add_layer_of_batches(const MoeLayerCosts& costs, std::span<const MoeTraffic> batches) {
  std::vector<int> routed, sent, computed;
  for (std::size_t b = 0; b < batches.size(); ++b) {
    routed.push_back(route(costs, static_cast<int>(b)));
    sent.push_back(
        exchange(TaskKind::dispatch, batches[b].dispatch, costs.dispatch_start_s, costs.dispatch_s, 1, routed.back()));
    if (shared_beside_s(costs) <= 0) continue;
    for (int rank = 0; rank < ranks_; ++rank) {
      after_.assign(1, routed.back());
      compute(TaskKind::kernel, rank, costs.shared_s, "shared experts");
    }
  }
  for (std::size_t b = 0; b < batches.size(); ++b) {
    computed.push_back(experts(costs, batches[b], sent[b]));
    ready_[b] =
        exchange(TaskKind::combine, batches[b].dispatch, costs.combine_start_s, costs.combine_s, 1, computed[b]);
  }
}

void MoeEvents::add_weights(int from, double bytes, double start_s) {
  ByteMatrix matrix(ranks_);
  for (int to = 0; to < ranks_; ++to) {
    if (to != from) matrix.at(from, to) = bytes;
  }
  after_.clear();
  if (ready_.front() >= 0) after_.push_back(ready_.front());
  if (dispatching_ >= 0 && dispatching_ != ready_.front()) after_.push_back(dispatching_);
  dispatching_ = graph_.add_task(TaskKind::transfer, -1, kDispatch, start_s, ports_.demands(matrix, Way::sent), after_);
  // Experts wait through the dispatch that follows in the same stream.
}

}  // namespace moecast
