// Clusters that ship and clusters that lie; which links a message takes.
#include "hwprofiles/cluster.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "models/core/error.h"
#include "models/routing/byte_matrix.h"

namespace moecast {
namespace {

constexpr const char* kFast = R"({"value":450e9,"unit":"B/s","origin":"datasheet","source":"x"})";
constexpr const char* kSlow = R"({"value":50e9,"unit":"B/s","origin":"datasheet","source":"x"})";

std::string text(int devices, int nodes, const std::string& up, const std::string& out) {
  return fmt::format(
      R"({{"schema_version":1,"name":"x","devices_per_node":{},"most_nodes":{},"scale_up":{{"kind":{}}},"scale_out":{{"kind":{}}}}})",
      devices, nodes, up, out);
}

Cluster cluster(int devices, int nodes, const std::string& out) {
  return parse_cluster_text(text(devices, nodes, fmt::format(R"("switch","bandwidth":{})", kFast), out), "test");
}

std::vector<std::string> names(const Topology& topology, int from, int to) {
  std::vector<std::string> found;
  for (const int link : topology.route(from, to))
    found.push_back(topology.links()[static_cast<std::size_t>(link)].name);
  return found;
}

/// Seconds until the fullest link is done when every rank sends `bytes_per_rank` to all in equal parts.
double uniform_time(const Topology& topology, double bytes_per_rank, bool across_only = false) {
  std::vector<double> loads(topology.links().size(), 0);
  const int ranks = topology.ranks();
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      if (across_only && from / topology.ranks_per_node() == to / topology.ranks_per_node()) continue;
      for (const int link : topology.route(from, to)) loads[static_cast<std::size_t>(link)] += bytes_per_rank / ranks;
    }
  }
  double longest = 0;
  for (std::size_t i = 0; i < loads.size(); ++i) longest = std::max(longest, loads[i] / topology.links()[i].bandwidth);
  return longest;
}

TEST(Cluster, WhatShipsIsReadAndWrittenBack) {
  int files = 0;
  std::set<FabricKind> inside, between;
  int largest_node = 0;
  for (const auto& entry : std::filesystem::directory_iterator(MOECAST_SOURCE_DIR "/hwprofiles/clusters")) {
    const Cluster read = read_cluster(entry.path().string());
    inside.insert(read.scale_up.kind);
    between.insert(read.scale_out.kind);
    largest_node = std::max(largest_node, read.devices_per_node);
    EXPECT_EQ(read.name, entry.path().stem().string());
    EXPECT_EQ(cluster_text(parse_cluster_text(cluster_text(read), "again")), cluster_text(read));
    Profile device;
    if (!read.device.empty()) device = read_profile(std::string(MOECAST_SOURCE_DIR "/hwprofiles/") + read.device);
    const int ranks = std::min(64, read.devices_per_node * read.most_nodes);
    const Topology topology(read, ranks, read.device.empty() ? nullptr : &device);
    for (int from = 0; from < ranks; ++from) {
      for (int to = 0; to < ranks; ++to) {
        const std::vector<int> route = topology.route(from, to);
        EXPECT_EQ(route.empty(), from == to);
        EXPECT_EQ(std::set<int>(route.begin(), route.end()).size(), route.size()) << read.name << " goes in a circle";
      }
    }
    ++files;
  }
  EXPECT_GE(files, 10);
  using enum FabricKind;
  EXPECT_EQ(inside, (std::set{none, one_switch, pcie_tree}));
  EXPECT_EQ(between, (std::set{none, one_switch, fat_tree, rail_optimised, torus, dragonfly})) << "one of each kind";
  EXPECT_EQ(largest_node, 72) << "a rack that NVLink joins";
}

TEST(Cluster, RoutesAreThoseOfTheFabric) {
  const Topology rail(cluster(4, 8, fmt::format(R"("rail_optimised","bandwidth":{},"nodes_per_switch":4)", kSlow)), 32,
                      nullptr);
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(rail, 0, 1), (Names{"rank 0 port out", "rank 1 port in"}));
  EXPECT_EQ(names(rail, 1, 5), (Names{"nic 1 out", "nic 5 in"}));
  // Another rail: over the scale-up link to the device of that rail first.
  EXPECT_EQ(names(rail, 0, 5), (Names{"rank 0 port out", "rank 1 port in", "nic 1 out", "nic 5 in"}));
  EXPECT_EQ(names(rail, 1, 17), (Names{"nic 1 out", "leaf 1 up", "leaf 5 down", "nic 17 in"}));
  const Topology torus(cluster(1, 16, fmt::format(R"("torus","bandwidth":{},"dimensions":[4,4])", kSlow)), 16, nullptr);
  EXPECT_EQ(names(torus, 0, 7), (Names{"nic 0 out", "node 0 -0", "node 3 +1", "nic 7 in"}));
  const Topology fly(cluster(1, 8, fmt::format(R"("dragonfly","bandwidth":{},"nodes_per_switch":2)", kSlow)), 8,
                     nullptr);
  EXPECT_EQ(names(fly, 0, 1), (Names{"nic 0 out", "nic 1 in"}));
  EXPECT_EQ(names(fly, 0, 7), (Names{"nic 0 out", "group 0 to 3", "nic 7 in"}));
  const Topology tree(
      parse_cluster_text(
          text(8, 1, fmt::format(R"("pcie_tree","devices_per_switch":4,"bandwidth":{})", kSlow), R"("none")"), "x"),
      8, nullptr);
  EXPECT_EQ(names(tree, 0, 3), (Names{"rank 0 port out", "rank 3 port in"}));
  EXPECT_EQ(names(tree, 0, 4), (Names{"rank 0 port out", "switch 0 up", "switch 1 down", "rank 4 port in"}));
}

TEST(Cluster, RowsChangeRailsWhereTheLibraryDoes) {
  Topology rails(cluster(2, 4, fmt::format(R"("rail_optimised","bandwidth":{},"nodes_per_switch":2)", kSlow)), 8,
                 nullptr);
  using Names = std::vector<std::string>;
  // Rank 0 (node 0, rail 0) to rank 3 (node 1, rail 1).
  EXPECT_EQ(names(rails, 0, 3), (Names{"rank 0 port out", "rank 1 port in", "nic 1 out", "nic 3 in"}));
  rails.change_rails(RailChange::at_receiver);
  EXPECT_EQ(names(rails, 0, 3), (Names{"nic 0 out", "nic 2 in", "rank 2 port out", "rank 3 port in"}));
  EXPECT_EQ(names(rails, 0, 2), (Names{"nic 0 out", "nic 2 in"}));
  rails.change_rails(RailChange::never);  // from one rail to the other through the spine
  EXPECT_EQ(names(rails, 0, 3), (Names{"nic 0 out", "leaf 0 up", "leaf 1 down", "nic 3 in"}));
  EXPECT_EQ(names(rails, 0, 1), (Names{"rank 0 port out", "rank 1 port in"}));
}

TEST(Cluster, ANodeThatIsNotFullHasOnlyItsOwnLinks) {
  // Three ranks on nodes of two: rank 3 is not there, so rows of rank 2 stay on its rail.
  Topology rails(cluster(2, 4, fmt::format(R"("rail_optimised","bandwidth":{})", kSlow)), 3, nullptr);
  for (const RailChange where : {RailChange::at_sender, RailChange::at_receiver, RailChange::never}) {
    rails.change_rails(where);
    for (int from = 0; from < 3; ++from) {
      for (int to = 0; to < 3; ++to) {
        for (const std::string& name : names(rails, from, to)) EXPECT_NE(name, "nic 3 in");
        for (const std::string& name : names(rails, from, to)) EXPECT_NE(name, "nic 3 out");
      }
    }
  }
}

TEST(Cluster, OversubscriptionTwoToOneDoublesTheTermBetweenLeaves_C12) {
  const auto time = [](double oversubscription) {
    const Topology topology(
        cluster(8, 16,
                fmt::format(R"("fat_tree","bandwidth":{},"nodes_per_switch":1,"oversubscription":{})", kSlow,
                            oversubscription)),
        128, nullptr);
    return uniform_time(topology, 1e8, true);
  };
  EXPECT_NEAR(time(2) / time(1), 2, 1e-9);
}

TEST(Cluster, AllToAllGrowsWithRanksOverNodes_C12) {
  // A dragonfly only inside a group: the fewer of its groups take part, the fewer of its bundles carry.
  for (const char* out :
       {R"("switch")", R"("fat_tree")", R"("rail_optimised")", R"("dragonfly","nodes_per_switch":64)"}) {
    const Cluster wide = cluster(8, 64, fmt::format(R"({},"bandwidth":{})", out, kSlow));
    double before = 0;
    for (int ranks = 8; ranks <= 512; ranks *= 2) {
      const double time = uniform_time(Topology(wide, ranks, nullptr), 1e8);
      EXPECT_GT(time, before) << out << " " << ranks;
      before = time;
    }
  }
}

TEST(Cluster, TheServersLinkIsTheBottleneckOfAParameterServer_C9) {
  const Cluster wide = cluster(1, 64, fmt::format(R"("switch","bandwidth":{})", kSlow));
  for (const int workers : {4, 16, 63}) {
    const Topology topology(wide, workers + 1, nullptr);
    std::vector<double> loads(topology.links().size(), 0);
    for (int worker = 1; worker <= workers; ++worker) {
      for (const int link : topology.route(worker, 0)) loads[static_cast<std::size_t>(link)] += 1e6;
    }
    const auto fullest = static_cast<std::size_t>(std::max_element(loads.begin(), loads.end()) - loads.begin());
    EXPECT_EQ(topology.links()[fullest].name, "nic 0 in");
    EXPECT_DOUBLE_EQ(loads[fullest], 1e6 * workers);
  }
}

TEST(Cluster, ADegradedLinkSlowsWhatGoesOverIt) {
  Topology topology(cluster(4, 1, R"("none")"), 4, nullptr);
  const double before = uniform_time(topology, 1e8);
  topology.scale_link("rank 2 port in", 0.25);
  EXPECT_NEAR(uniform_time(topology, 1e8) / before, 4, 1e-9);
  EXPECT_THROW(topology.scale_link("rank 9 port in", 0.5), InputError);
  EXPECT_THROW(topology.scale_link("rank 2 port in", 0), InputError);
}

TEST(Cluster, WhatNobodyKnowsIsAssumedAndSaid) {
  const Topology topology(cluster(2, 2, R"("switch")"), 4, nullptr);
  ASSERT_EQ(topology.assumed().size(), 1U);
  EXPECT_NE(topology.assumed().front().find("50 GB/s"), std::string::npos);
  EXPECT_EQ(topology.origin(), Origin::assumed);
  const Cluster known = cluster(2, 2, fmt::format(R"("switch","bandwidth":{})", kSlow));
  EXPECT_TRUE(Topology(known, 4, nullptr).assumed().empty());
  EXPECT_EQ(Topology(known, 4, nullptr).origin(), Origin::datasheet);
  const Topology own(
      cluster(2, 2, R"("switch","bandwidth":{"value":7e9,"unit":"B/s","origin":"assumed","source":"a guess"})"), 4,
      nullptr);
  EXPECT_EQ(own.origin(), Origin::assumed) << "what the file assumes itself";
  EXPECT_NE(own.assumed().front().find("7 GB/s assumed (a guess)"), std::string::npos);
  EXPECT_EQ(Topology(known, 2, nullptr).origin(), Origin::datasheet) << "of one node, its own links";
  const Topology inside(parse_cluster_text(text(2, 1, R"("switch")", R"("none")"), "x"), 2, nullptr);
  EXPECT_EQ(inside.origin(), Origin::assumed);
  EXPECT_EQ(inside.port_bandwidth(), 450e9);
  EXPECT_NE(inside.assumed().front().find("450 GB/s (NVLink 4) is assumed"), std::string::npos);
  const Topology tree(parse_cluster_text(text(2, 1, R"("pcie_tree")", R"("none")"), "x"), 2, nullptr);
  EXPECT_EQ(tree.port_bandwidth(), 64e9);
}

TEST(Cluster, AMessageStartsWhenItsFileSaysOrAsAssumed) {
  const Topology silent(cluster(2, 2, R"("switch")"), 4, nullptr);
  EXPECT_EQ(silent.message_start(false).origin, Origin::assumed);
  EXPECT_GT(silent.message_start(true).seconds, silent.message_start(false).seconds);
  const Topology says(
      cluster(2, 2, R"("switch","latency":{"value":1e-3,"unit":"s","origin":"measured","source":"ping"})"), 4, nullptr);
  EXPECT_EQ(says.message_start(true).seconds, 1e-3);
  EXPECT_EQ(says.message_start(true).origin, Origin::measured);
  EXPECT_EQ(says.message_start(false).origin, Origin::assumed) << "the other fabric";
}

TEST(Cluster, ABundleOfADragonflyIsThatOfAllItsGroups) {
  // Eight groups of one node with one NIC: a seventh of it to each other group, however many ranks are asked for.
  const Cluster fly = cluster(1, 8, fmt::format(R"("dragonfly","bandwidth":{},"nodes_per_switch":1)", kSlow));
  const auto bundle = [&](int ranks) {
    const Topology topology(fly, ranks, nullptr);
    const std::vector<int> route = topology.route(0, 1);
    return topology.links()[static_cast<std::size_t>(route.at(1))].bandwidth /
           topology.links()[static_cast<std::size_t>(route.front())].bandwidth;
  };
  EXPECT_NEAR(bundle(8), 1.0 / 7, 1e-12);
  EXPECT_NEAR(bundle(2), 1.0 / 7, 1e-12);
  // So two groups that exchange all they have over their one bundle take longer than one, and than all eight together.
  const double two = uniform_time(Topology(fly, 2, nullptr), 1e8);
  EXPECT_NEAR(two / (1e8 / 2 / 50e9), 7, 1e-6);
  EXPECT_LT(uniform_time(Topology(fly, 8, nullptr), 1e8), two);
}

TEST(Cluster, MoreGroupsThanAnyDragonflyHasAreRefused) {
  const Cluster fly = cluster(1, 4096, fmt::format(R"("dragonfly","bandwidth":{},"nodes_per_switch":1)", kSlow));
  EXPECT_NO_THROW(Topology(fly, 64, nullptr));
  EXPECT_THROW(Topology(fly, 4096, nullptr), InputError);
}

std::string problem(const std::string& file) {
  try {
    parse_cluster_text(file, "c.json");
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Cluster, WrongFilesAreRefusedByPointer) {
  const std::string up = fmt::format(R"("switch","bandwidth":{})", kFast);
  const auto has = [](const std::string& said, const char* part) { return said.find(part) != std::string::npos; };
  EXPECT_PRED2(has, problem(text(8, 1, R"("none")", R"("none")")), "/scale_up");
  EXPECT_PRED2(has, problem(text(8, 2, up, R"("none")")), "/scale_out");
  EXPECT_PRED2(has, problem(text(8, 2, R"("torus")", R"("switch")")), "/scale_up/kind");
  EXPECT_PRED2(has, problem(text(8, 4, up, R"("torus","dimensions":[2,3])")), "6 nodes");
  EXPECT_PRED2(
      has,
      problem(text(8, 2, up, R"("switch","bandwidth":{"value":0,"unit":"B/s","origin":"datasheet","source":"x"})")),
      "above zero");
  EXPECT_PRED2(has,
               problem(text(8, 2, up,
                            R"("switch","bandwidth":{"value":400,"unit":"Gbit/s","origin":"datasheet","source":"x"})")),
               "unit");
  EXPECT_PRED2(has, problem(text(8, 2, up, R"("fat_tree","oversubscription":0.5)")), "oversubscription");
  EXPECT_PRED2(has, problem(text(8, 2, up, R"("switch","nics_per_node":3)")), "NICs");
  EXPECT_PRED2(has, problem(text(4, 1, R"("pcie_tree","devices_per_switch":3)", R"("none")")), "3 devices a switch");
  EXPECT_PRED2(has, problem(text(0, 1, up, R"("none")")), "devices_per_node");
  EXPECT_PRED2(has, problem("{"), "c.json");
  EXPECT_THROW(Topology(cluster(8, 2, R"("switch")"), 17, nullptr), InputError);
  EXPECT_THROW(Topology(cluster(8, 2, R"("switch")"), 0, nullptr), InputError);
}

}  // namespace
}  // namespace moecast
