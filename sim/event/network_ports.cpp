#include <fmt/format.h>

#include <algorithm>

#include "models/core/error.h"
#include "sim/event/event_graph.h"

namespace moecast {
namespace {

/// Routes of all pairs are kept below this many ranks (20 MB, twice where the dispatch changes rails elsewhere than
/// sends).
constexpr int kMostKept = 1024;

}  // namespace

NetworkPorts::NetworkPorts(EventGraph& graph, const Topology& topology, double efficiency)
    : topology_(topology), efficiency_(efficiency), loads_(topology.links().size(), 0) {
  if (!(efficiency > 0) || efficiency > 1) {
    throw InputError("network", fmt::format("an efficiency of {}", efficiency), "above 0 and at most 1");
  }
  first_ = static_cast<int>(graph.resources().size());
  for (const ClusterLink& link : topology_.links()) graph.add_resource(link.name, link.bandwidth * efficiency);
  const int ranks = topology_.ranks();
  if (ranks <= kMostKept) there_ = Routes(topology_);
  if (topology.rail_change() == RailChange::at_sender) return;
  sender_topology_.emplace(topology_);
  sender_topology_->change_rails(RailChange::at_sender);
  if (ranks <= kMostKept) sender_ = Routes(*sender_topology_);
}

NetworkPorts::Routes::Routes(const Topology& topology) {
  std::vector<int> links;
  first.push_back(0);
  for (int from = 0; from < topology.ranks(); ++from) {
    for (int to = 0; to < topology.ranks(); ++to) {
      topology.route(from, to, links);
      all.insert(all.end(), links.begin(), links.end());
      first.push_back(static_cast<std::uint32_t>(all.size()));
    }
  }
}

std::span<const int> NetworkPorts::route(int from, int to, Way way) {
  // What changed rails at the receiver changes at the sender on its way back: at the same place.
  const bool reversed = way == Way::back && topology_.rail_change() == RailChange::at_receiver;
  const bool other = sender_topology_ && (way == Way::sent || reversed);
  const Routes& known = other ? sender_ : there_;
  if (known.first.empty()) {
    (other ? *sender_topology_ : topology_).route(from, to, scratch_);
    return scratch_;
  }
  const auto at =
      static_cast<std::size_t>(from) * static_cast<std::size_t>(topology_.ranks()) + static_cast<std::size_t>(to);
  return std::span(known.all).subspan(known.first[at], known.first[at + 1] - known.first[at]);
}

void NetworkPorts::check(const ByteMatrix& bytes) const {
  if (bytes.ranks() != topology_.ranks()) {
    throw InputError("network", fmt::format("a matrix of {} ranks on {} ranks", bytes.ranks(), topology_.ranks()));
  }
}

std::span<const int> NetworkPorts::route_of(const Transfer& transfer, Way way) {
  const auto& [from, to, bytes] = transfer;
  if (std::min(from, to) < 0 || std::max(from, to) >= topology_.ranks()) {
    throw InputError("network", fmt::format("rank {} sends to rank {}; there are {}", from, to, topology_.ranks()));
  }
  const std::span<const int> links = route(from, to, way);
  if (links.empty()) {
    throw InputError("network", fmt::format("no link leads from rank {} to rank {}", from, to));
  }
  return links;
}

void NetworkPorts::load(const ByteMatrix& bytes, Way way) {
  check(bytes);
  std::fill(loads_.begin(), loads_.end(), 0.0);
  const int ranks = bytes.ranks();
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      const double amount = bytes.at(from, to);
      if (amount == 0 || from == to) continue;
      const std::span<const int> links = way == Way::back ? route(to, from, way) : route(from, to, way);
      for (const int link : links) loads_[static_cast<std::size_t>(link)] += amount;
    }
  }
}

void NetworkPorts::load(std::span<const Transfer> transfers) {
  std::fill(loads_.begin(), loads_.end(), 0.0);
  for (const Transfer& transfer : transfers) {
    for (const int link : route_of(transfer, Way::sent)) loads_[static_cast<std::size_t>(link)] += transfer.bytes;
  }
}

std::span<const Demand> NetworkPorts::demands(const ByteMatrix& bytes, Way way) {
  load(bytes, way);
  return demands_of_loads();
}

std::span<const Demand> NetworkPorts::demands(std::span<const Transfer> transfers) {
  load(transfers);
  return demands_of_loads();
}

std::span<const Demand> NetworkPorts::demands_of_loads() {
  demands_.clear();
  demand_resources_.clear();
  demand_resources_.reserve(loads_.size());  // spans point into it
  fullest_s_ = healthy_s_ = 0;
  for (std::size_t link = 0; link < loads_.size(); ++link) {
    if (loads_[link] == 0) continue;
    const ClusterLink& wire = topology_.links()[link];
    const double seconds = loads_[link] / (wire.bandwidth * efficiency_);
    fullest_s_ = std::max(fullest_s_, seconds);
    healthy_s_ = std::max(healthy_s_, seconds * wire.scale);
    demand_resources_.push_back(first_ + static_cast<int>(link));
    demands_.push_back({loads_[link], std::numeric_limits<double>::infinity(), std::span(demand_resources_).last(1)});
  }
  return demands_;
}

void NetworkPorts::rescale(double factor) {
  for (Demand& demand : demands_) demand.amount *= factor;
}

std::span<const Demand> NetworkPorts::flows(const ByteMatrix& bytes, double scale, Way way) {
  check(bytes);
  transfers_.clear();
  for (int from = 0; from < bytes.ranks(); ++from) {
    for (int to = 0; to < bytes.ranks(); ++to) {
      if (from != to && bytes.at(from, to) != 0) transfers_.push_back({from, to, bytes.at(from, to)});
    }
  }
  return flows(transfers_, scale, way);
}

std::span<const Demand> NetworkPorts::flows(std::span<const Transfer> transfers, double scale, Way way) {
  demands_.clear();
  demand_resources_.clear();
  std::vector<std::size_t> first;
  for (const Transfer& transfer : transfers) {
    first.push_back(demand_resources_.size());
    for (const int link : route_of(transfer, way)) demand_resources_.push_back(first_ + link);
    demands_.push_back({transfer.bytes * scale, std::numeric_limits<double>::infinity(), {}});
  }
  first.push_back(demand_resources_.size());
  for (std::size_t i = 0; i < demands_.size(); ++i) {
    demands_[i].resources = std::span(demand_resources_).subspan(first[i], first[i + 1] - first[i]);
  }
  return demands_;
}

void NetworkPorts::leave_to_others(EventGraph& graph, double share) const {
  for (std::size_t link = 0; link < topology_.links().size(); ++link) {
    graph.leave_to_others(resource(static_cast<int>(link)), share);
  }
}

double NetworkPorts::bound_s(const ByteMatrix& bytes, Way way) {
  load(bytes, way);
  double longest = 0;
  for (std::size_t link = 0; link < loads_.size(); ++link) {
    longest = std::max(longest, loads_[link] / (topology_.links()[link].bandwidth * efficiency_));
  }
  return longest;
}

}  // namespace moecast
