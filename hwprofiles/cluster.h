#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/profile.h"
#include "models/core/origin.h"

namespace moecast {

inline constexpr int kClusterSchemaVersion = 1;

/// How devices of a node, or nodes of a cluster, are joined.
///
/// Scale-up: none, full switch (NVSwitch), PCIe tree. Scale-out: none, one switch, classic fat tree, rail-optimised fat
/// tree (devices of equal index share a switch; how others are reached is said by `RailChange`, over the scale-up link
/// or a spine), torus, dragonfly.
enum class FabricKind { none, one_switch, pcie_tree, fat_tree, rail_optimised, torus, dragonfly };
std::string_view to_string(FabricKind kind);

/// A fabric as its file describes it. A bandwidth that nobody knows is nullopt, and predicted as assumed.
struct Fabric {
  FabricKind kind = FabricKind::none;
  std::optional<HardwareQuantity> bandwidth;  ///< of a device's port, one direction, B/s
  std::optional<HardwareQuantity> latency;    ///< of a message to a peer, s
  int devices_per_switch = 0;                 ///< pcie_tree: below one switch. 0: all
  int nics_per_node = 0;                      ///< scale-out; 0: one a device
  int nodes_per_switch = 0;     ///< fat_tree, rail_optimised, dragonfly: below one leaf, or in a group. 0: all
  double oversubscription = 1;  ///< bandwidth below a leaf over that above it, at least 1
  std::vector<int> dimensions;  ///< torus: nodes along each
};

/// hwprofiles/clusters/<name>.json: how ranks are wired.
struct Cluster {
  std::string name;
  std::string device;  ///< profile whose datasheet says what a fabric's file does not
  int devices_per_node = 1;
  int most_nodes = 1;
  Fabric scale_up;
  Fabric scale_out;
  std::vector<std::string> notes;
};

/// @throws InputError naming the pointer: unknown kind, counts that do not fit, a bandwidth that is not above zero, an
/// oversubscription below 1, several nodes without a fabric between them.
Cluster parse_cluster_text(std::string_view text, const std::string& where);
Cluster read_cluster(const std::string& path);
std::string cluster_text(const Cluster& cluster);
/// The same where nothing tapers: on which laws of uniform traffic hold.
Cluster without_taper(Cluster cluster);

/// A directed link.
struct ClusterLink {
  std::string name;      ///< "rank 3 nvlink out", "leaf 1 up"
  double bandwidth = 0;  ///< B/s
  double scale = 1;      ///< of the bandwidth that it has when nothing is degraded
};

/// What a message waits for before its bytes flow, and who says so.
struct MessageStart {
  double seconds = 0;
  Origin origin = Origin::assumed;
};

/// How rows change rails between nodes: over the scale-up link of the sender's node (NCCL), over that of the receiver's
/// (DeepEP's normal mode), or not at all, from NIC to NIC (DeepEP's low latency).
enum class RailChange { at_sender, at_receiver, never };

/// The links of so many ranks of a cluster, and which of them a message takes. Ranks fill nodes in order.
class Topology {
 public:
  /// @param device  fills in what the cluster's file leaves open; may be null.
  /// @throws InputError when there are more ranks than the cluster has, or more groups of a dragonfly than are
  /// simulated.
  Topology(const Cluster& cluster, int ranks, const Profile* device);

  [[nodiscard]] int ranks() const { return ranks_; }
  [[nodiscard]] int ranks_per_node() const { return per_node_; }
  [[nodiscard]] int nodes() const { return (ranks_ + per_node_ - 1) / per_node_; }
  [[nodiscard]] const std::vector<ClusterLink>& links() const { return links_; }
  /// Links from one rank to another, in order; empty for the rank itself.
  void route(int from, int to, std::vector<int>& out) const;
  [[nodiscard]] std::vector<int> route(int from, int to) const;
  /// Of rail-optimised fabrics; at_sender unless set.
  void change_rails(RailChange where) { rail_change_ = where; }
  [[nodiscard]] RailChange rail_change() const { return rail_change_; }
  /// Multiplies a link's bandwidth. @throws InputError unless the link exists and 0 < factor.
  void scale_link(const std::string& name, double factor);
  /// Of a device's scale-up link, one direction, B/s; 0: one device a node.
  [[nodiscard]] double port_bandwidth() const { return port_; }
  /// Of a device's share of its NIC, one direction, B/s; 0: one node.
  [[nodiscard]] double nic_bandwidth() const;
  /// Seconds of a message to a peer of the same node, or across nodes, where the cluster's file says them.
  [[nodiscard]] std::optional<double> message_latency(bool across_nodes) const;
  /// The same, and an assumption where the file is silent.
  [[nodiscard]] MessageStart message_start(bool across_nodes) const;
  /// Bandwidths that the cluster's file does not know: the device's datasheet, or an assumption, stands for them; or
  /// that it assumes itself.
  [[nodiscard]] const std::vector<std::string>& assumed() const { return assumed_; }
  /// Weakest of the links' bandwidths.
  [[nodiscard]] Origin origin() const { return origin_; }

 private:
  [[nodiscard]] int node_of(int rank) const { return rank / per_node_; }
  void add_scale_up();
  void add_scale_out();
  void route_inside(int from, int to, std::vector<int>& out) const;
  void route_torus(int from, int to, std::vector<int>& out) const;
  [[nodiscard]] int nic_of(int rank) const;
  [[nodiscard]] int leaf_of(int node, int nic, int nodes_below) const;
  int add(std::string name, double bandwidth);

  const Cluster cluster_;
  int ranks_;
  int per_node_;
  double port_ = 0;  ///< scale-up, B/s
  double nic_ = 0;   ///< of one NIC, B/s
  std::vector<ClusterLink> links_;
  std::vector<std::string> assumed_;
  Origin origin_ = Origin::measured;
  int switch_first_ = 0;  ///< first link of PCIe switches
  int nic_first_ = 0;     ///< first link of NICs: out and in of each in turn
  int leaf_first_ = 0;    ///< first link of leaves, torus or groups
  int rails_ = 0;
  RailChange rail_change_ = RailChange::at_sender;
};

}  // namespace moecast
