// Which links traffic loads: rows there and back, and what is sent beside them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "sim/event/event_graph.h"

namespace moecast {
namespace {

/// Two nodes of two devices, a rail each.
Topology rails(RailChange where) {
  Topology topology(parse_cluster_text(R"({"schema_version":1,"name":"x","devices_per_node":2,"most_nodes":2,
      "scale_up":{"kind":"switch","bandwidth":{"value":100e9,"unit":"B/s","origin":"datasheet","source":"x"}},
      "scale_out":{"kind":"rail_optimised","bandwidth":{"value":10e9,"unit":"B/s","origin":"datasheet","source":"x"},
                   "nodes_per_switch":2}})",
                                       "x"),
                    4, nullptr);
  topology.change_rails(where);
  return topology;
}

using Loads = std::map<std::string, double>;

class RailsOf : public testing::Test {
 protected:
  explicit RailsOf(RailChange where = RailChange::at_receiver) : ports_(graph_, rails(where)) {}

  Loads loads(std::span<const Demand> demands) const {
    Loads found;
    for (const Demand& demand : demands) {
      for (const int at : demand.resources) {
        found[graph_.resources()[static_cast<std::size_t>(at)].name] += demand.amount;
      }
    }
    return found;
  }
  /// Rank 0 (node 0, rail 0) to rank 3 (node 1, rail 1).
  static ByteMatrix across() {
    ByteMatrix matrix(4);
    matrix.at(0, 3) = 1e6;
    return matrix;
  }

  EventGraph graph_;
  NetworkPorts ports_;
};

const Loads kAtReceiver{{"nic 0 out", 1e6}, {"nic 2 in", 1e6}, {"rank 2 port out", 1e6}, {"rank 3 port in", 1e6}};
/// The same places, from rank 3 to rank 0.
const Loads kReturned{{"rank 3 port out", 1e6}, {"rank 2 port in", 1e6}, {"nic 2 out", 1e6}, {"nic 0 in", 1e6}};
const Loads kAtSender{{"rank 0 port out", 1e6}, {"rank 1 port in", 1e6}, {"nic 1 out", 1e6}, {"nic 3 in", 1e6}};

TEST_F(RailsOf, RowsGoBackTheWayTheyCame) {
  EXPECT_EQ(loads(ports_.demands(across())), kAtReceiver);
  EXPECT_EQ(loads(ports_.demands(across(), Way::back)), kReturned);
  EXPECT_EQ(loads(ports_.flows(across())), kAtReceiver);
  EXPECT_EQ(loads(ports_.flows(across().transposed(), 1, Way::back)), kReturned) << "as they travel";
  EXPECT_DOUBLE_EQ(ports_.bound_s(across()), 1e-4);
  EXPECT_DOUBLE_EQ(ports_.bound_s(across(), Way::back), 1e-4);
}

TEST_F(RailsOf, WhatIsSentTakesTheRailsOfSends) {
  const Transfer one{0, 3, 1e6};
  EXPECT_EQ(loads(ports_.demands(across(), Way::sent)), kAtSender) << "weights of a shadowed expert";
  EXPECT_EQ(loads(ports_.demands(std::span(&one, 1))), kAtSender);
  EXPECT_EQ(loads(ports_.flows(std::span(&one, 1))), kAtSender);
}

class RailsOfLowLatency : public RailsOf {
 protected:
  RailsOfLowLatency() : RailsOf(RailChange::never) {}
};

TEST_F(RailsOfLowLatency, RowsStayOnTheirRailBothWays) {
  EXPECT_THAT(loads(ports_.demands(across())), testing::Contains(testing::Key("nic 3 in")));
  EXPECT_THAT(loads(ports_.demands(across())), testing::Not(testing::Contains(testing::Key("rank 3 port in"))));
  EXPECT_THAT(loads(ports_.demands(across(), Way::back)), testing::Contains(testing::Key("nic 3 out")));
  EXPECT_EQ(loads(ports_.demands(across(), Way::sent)), kAtSender);
}

}  // namespace
}  // namespace moecast
