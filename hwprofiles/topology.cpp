#include <fmt/format.h>

#include <algorithm>

#include "hwprofiles/cluster.h"
#include "models/core/error.h"
#include "models/core/json.h"

namespace moecast {
namespace {

/// Where nothing says it: a NIC of 400 Gbit/s, PCIe 5.0 x16 below a tree of switches, NVLink 4 at a switch.
constexpr double kAssumedNic = 50e9;
constexpr double kAssumedPcie = 64e9;
constexpr double kAssumedNvlink = 450e9;
/// A step of NCCL's Simple protocol over NVLink, and a message between hosts over a NIC (a step of its all-to-all
/// between nodes).
constexpr double kAssumedStepInside = 1.5e-6;
constexpr double kAssumedStepAcross = 5e-6;
/// Bundles between each two groups grow with the square; the largest dragonflies have some hundred groups.
constexpr int kMostGroups = 1024;

int divided_up(int what, int by) { return (what + by - 1) / by; }

}  // namespace

Topology::Topology(const Cluster& cluster, int ranks, const Profile* device)
    : cluster_(cluster), ranks_(ranks), per_node_(cluster.devices_per_node) {
  const std::int64_t most = static_cast<std::int64_t>(cluster.most_nodes) * per_node_;
  if (ranks < 1 || ranks > most) {
    throw InputError("cluster", fmt::format("{} has {} devices, {} ranks are asked for", cluster.name, most, ranks),
                     "fewer ranks, or a larger cluster (moecast list clusters)");
  }
  const auto known = [&](const Fabric& fabric, const char* quantity) -> double {
    if (fabric.bandwidth) {
      origin_ = weakest(origin_, fabric.bandwidth->origin);
      if (fabric.bandwidth->origin == Origin::assumed) {
        assumed_.push_back(fmt::format("{}: {:.4g} GB/s assumed ({})", cluster.name, fabric.bandwidth->value / 1e9,
                                       fabric.bandwidth->source));
      }
      return fabric.bandwidth->value;
    }
    const HardwareQuantity* found = device == nullptr ? nullptr : device->find(quantity);
    if (found == nullptr) return 0;
    origin_ = weakest(origin_, found->origin);
    assumed_.push_back(fmt::format("{}: {} of {}'s datasheet", cluster.name, quantity, device->name));
    return found->value;
  };
  if (per_node_ > 1 && ranks > 1) {
    port_ = known(cluster.scale_up, "scaleup_bandwidth_per_direction");
    if (!(port_ > 0)) {
      const bool pcie = cluster.scale_up.kind == FabricKind::pcie_tree;
      port_ = pcie ? kAssumedPcie : kAssumedNvlink;
      origin_ = Origin::assumed;
      assumed_.push_back(fmt::format("{}: a scale-up link of {:.0f} GB/s ({}) is assumed, nothing says it",
                                     cluster.name, port_ / 1e9, pcie ? "PCIe 5.0 x16" : "NVLink 4"));
    }
    add_scale_up();
  }
  if (nodes() > 1) {
    nic_ = known(cluster.scale_out, "scaleout_bandwidth_per_direction");
    if (!(nic_ > 0)) {
      nic_ = kAssumedNic;
      origin_ = Origin::assumed;
      assumed_.push_back(fmt::format("{}: a NIC of 50 GB/s", cluster.name));
    }
    add_scale_out();
  }
}

int Topology::add(std::string name, double bandwidth) {
  links_.push_back({std::move(name), bandwidth});
  return static_cast<int>(links_.size()) - 1;
}

void Topology::add_scale_up() {
  for (int rank = 0; rank < ranks_; ++rank) {
    add(fmt::format("rank {} port out", rank), port_);
    add(fmt::format("rank {} port in", rank), port_);
  }
  switch_first_ = static_cast<int>(links_.size());
  const int below = cluster_.scale_up.devices_per_switch;
  if (cluster_.scale_up.kind != FabricKind::pcie_tree || below == 0) return;
  const int switches = divided_up(ranks_, below);
  for (int at = 0; at < switches; ++at) {
    add(fmt::format("switch {} up", at), port_);
    add(fmt::format("switch {} down", at), port_);
  }
}

double Topology::nic_bandwidth() const {
  const int nics = cluster_.scale_out.nics_per_node;
  return nics == 0 ? nic_ : nic_ * std::min(1.0, static_cast<double>(nics) / per_node_);
}

MessageStart Topology::message_start(bool across_nodes) const {
  const Fabric& fabric = across_nodes ? cluster_.scale_out : cluster_.scale_up;
  if (fabric.latency) return {fabric.latency->value, fabric.latency->origin};
  return {across_nodes ? kAssumedStepAcross : kAssumedStepInside, Origin::assumed};
}

std::optional<double> Topology::message_latency(bool across_nodes) const {
  const Fabric& fabric = across_nodes ? cluster_.scale_out : cluster_.scale_up;
  return fabric.latency ? std::optional(fabric.latency->value) : std::nullopt;
}

int Topology::nic_of(int rank) const {
  const int nics = cluster_.scale_out.nics_per_node == 0 ? per_node_ : cluster_.scale_out.nics_per_node;
  return node_of(rank) * nics + rank % per_node_ * nics / per_node_;
}

void Topology::add_scale_out() {
  const Fabric& out = cluster_.scale_out;
  const int nics = out.nics_per_node == 0 ? per_node_ : out.nics_per_node;
  nic_first_ = static_cast<int>(links_.size());
  for (int nic = 0; nic < nodes() * nics; ++nic) {
    add(fmt::format("nic {} out", nic), nic_);
    add(fmt::format("nic {} in", nic), nic_);
  }
  leaf_first_ = static_cast<int>(links_.size());
  const int below = out.nodes_per_switch == 0 ? nodes() : out.nodes_per_switch;
  const int leaves = divided_up(nodes(), below);
  if (out.kind == FabricKind::fat_tree || out.kind == FabricKind::rail_optimised) {
    rails_ = out.kind == FabricKind::rail_optimised ? nics : 1;
    const double up = nic_ * below * (out.kind == FabricKind::fat_tree ? nics : 1) / out.oversubscription;
    for (int leaf = 0; leaf < leaves * rails_; ++leaf) {
      add(fmt::format("leaf {} up", leaf), up);
      add(fmt::format("leaf {} down", leaf), up);
    }
  } else if (out.kind == FabricKind::torus) {
    // A node's NICs are its links: shared equally by the directions.
    const double each = nic_ * nics / (2.0 * static_cast<double>(out.dimensions.size()));
    for (int node = 0; node < cluster_.most_nodes; ++node) {
      for (std::size_t d = 0; d < out.dimensions.size(); ++d) {
        add(fmt::format("node {} +{}", node, d), each);
        add(fmt::format("node {} -{}", node, d), each);
      }
    }
  } else if (out.kind == FabricKind::dragonfly) {
    if (leaves > kMostGroups) {
      throw InputError("cluster",
                       fmt::format("{} is a dragonfly of which {} groups are asked for; at most {} are simulated",
                                   cluster_.name, leaves, kMostGroups),
                       "fewer ranks, or more nodes a group (nodes_per_switch)");
    }
    // Between each two groups one bundle; a group's bundles together carry what its NICs do, over the oversubscription.
    // Those to groups that nobody asked for are there too.
    const int groups = divided_up(cluster_.most_nodes, below);
    const double each = nic_ * nics * below / (out.oversubscription * std::max(1, groups - 1));
    for (int from = 0; from < leaves; ++from) {
      for (int to = 0; to < leaves; ++to) add(fmt::format("group {} to {}", from, to), each);
    }
    rails_ = leaves;
  }
}

void Topology::route_inside(int from, int to, std::vector<int>& out) const {
  if (from == to) return;
  out.push_back(2 * from);
  const int below = cluster_.scale_up.devices_per_switch;
  if (cluster_.scale_up.kind == FabricKind::pcie_tree && below > 0 && from / below != to / below) {
    out.push_back(switch_first_ + 2 * (from / below));
    out.push_back(switch_first_ + 2 * (to / below) + 1);
  }
  out.push_back(2 * to + 1);
}

void Topology::route_torus(int from, int to, std::vector<int>& out) const {
  const std::vector<int>& sizes = cluster_.scale_out.dimensions;
  int stride = 1;
  int node = from;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    const int size = sizes[d];
    const int target = to / stride % size;
    int at = node / stride % size;
    const int ahead = (target - at + size) % size;
    const int step = ahead <= size - ahead ? 1 : -1;
    while (at != target) {
      out.push_back(leaf_first_ + 2 * (node * static_cast<int>(sizes.size()) + static_cast<int>(d)) +
                    (step > 0 ? 0 : 1));
      const int next = (at + step + size) % size;
      node += (next - at) * stride;
      at = next;
    }
    stride *= size;
  }
}

int Topology::leaf_of(int node, int nic, int nodes_below) const {
  const Fabric& fabric = cluster_.scale_out;
  const int nics = fabric.nics_per_node == 0 ? per_node_ : fabric.nics_per_node;
  const int rail = fabric.kind == FabricKind::rail_optimised ? nic % nics : 0;
  return node / nodes_below * rails_ + rail;
}

void Topology::route(int from, int to, std::vector<int>& out) const {
  out.clear();
  if (from == to) return;
  const int home = node_of(from);
  const int goal = node_of(to);
  if (home == goal) return route_inside(from, to, out);
  const Fabric& fabric = cluster_.scale_out;
  const int below = fabric.nodes_per_switch == 0 ? nodes() : fabric.nodes_per_switch;
  int nic = nic_of(from);
  int nic_in = nic_of(to);
  int arrives = to;
  const bool rails = fabric.kind == FabricKind::rail_optimised && per_node_ > 1;
  if (rails && rail_change_ == RailChange::at_sender) {
    // To the device of the receiver's rail first, over the scale-up link.
    const int peer = home * per_node_ + to % per_node_;
    if (peer < ranks_ && nic_of(peer) != nic) {  // a node that is not full may lack it
      route_inside(from, peer, out);
      nic = nic_of(peer);
    }
  } else if (rails && rail_change_ == RailChange::at_receiver) {
    const int peer = goal * per_node_ + from % per_node_;
    if (peer < ranks_ && nic_of(peer) != nic_in) {
      nic_in = nic_of(peer);
      arrives = peer;
    }
  }
  out.push_back(nic_first_ + 2 * nic);
  if (fabric.kind == FabricKind::torus) {
    route_torus(home, goal, out);
  } else if (fabric.kind == FabricKind::dragonfly && home / below != goal / below) {
    out.push_back(leaf_first_ + home / below * rails_ + goal / below);
  } else if ((fabric.kind == FabricKind::fat_tree || fabric.kind == FabricKind::rail_optimised) &&
             leaf_of(home, nic, below) != leaf_of(goal, nic_in, below)) {
    out.push_back(leaf_first_ + 2 * leaf_of(home, nic, below));
    out.push_back(leaf_first_ + 2 * leaf_of(goal, nic_in, below) + 1);
  }
  out.push_back(nic_first_ + 2 * nic_in + 1);
  route_inside(arrives, to, out);
}

std::vector<int> Topology::route(int from, int to) const {
  std::vector<int> links;
  route(from, to, links);
  return links;
}

void Topology::scale_link(const std::string& name, double factor) {
  for (ClusterLink& link : links_) {
    if (link.name != name) continue;
    if (!(factor > 0)) throw InputError("link " + name, "cannot be scaled by " + std::to_string(factor));
    link.bandwidth *= factor;
    link.scale *= factor;
    return;
  }
  std::vector<std::string_view> names;
  for (const ClusterLink& link : links_) names.push_back(link.name);
  const auto near = nearest_name(name, names);
  throw InputError("link " + name, fmt::format("is no link of {} ranks of {}", ranks_, cluster_.name),
                   near             ? fmt::format("did you mean \"{}\"?", *near)
                   : links_.empty() ? "it has none"
                                    : fmt::format("e.g. \"{}\" or \"{}\"", names.front(), names.back()));
}

Cluster without_taper(Cluster cluster) {
  cluster.scale_out.oversubscription = 1;
  return cluster;
}

}  // namespace moecast
