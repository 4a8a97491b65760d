#include "sim/event/host_ranks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "models/core/error.h"

namespace moecast {
namespace {

/// One device a node. @param fabric  fields of scale_out but its bandwidth of 1 GB/s.
Cluster hosts(int count, const std::string& fabric = R"("kind": "switch")") {
  return parse_cluster_text(
      R"({"schema_version": 1, "name": "hosts", "devices_per_node": 1, "most_nodes": )" + std::to_string(count) +
          R"(, "scale_up": {"kind": "none"}, "scale_out": {)" + fabric +
          R"(, "bandwidth": {"value": 1e9, "unit": "B/s", "origin": "assumed", "source": "test"}}})",
      "hosts.json");
}

HostRanks plain() {
  HostRanks law;
  law.cores = 2;
  return law;
}

TEST(HostRanks, ExchangeTakesItsStartItsPeersAndTheFullestPort) {
  HostRanks law = plain();
  law.start_s = 0.001;
  law.message_s = 0.0001;
  law.port_efficiency = 0.5;
  ByteMatrix bytes(4);
  bytes.at(0, 3) = 1e6;
  bytes.at(1, 3) = 2e6;
  bytes.at(2, 3) = 3e6;
  HostRankEvents events(law, hosts(4), 4);
  // Rank 3 takes in 6 MB at 500 MB/s; each sender has one peer.
  EXPECT_NEAR(events.exchange_s(bytes), 0.001 + 0.0001 + 6e6 / 5e8, 1e-9);
}

TEST(HostRanks, BurstsPassAheadOfThePort) {
  HostRanks law = plain();
  law.burst_bytes = 1e6;
  ByteMatrix bytes(2);
  bytes.at(0, 1) = 5e6;
  EXPECT_NEAR(HostRankEvents(law, hosts(2), 2).exchange_s(bytes), 4e6 / 1e9, 1e-9);
}

TEST(HostRanks, RacksShareTheirUplink) {
  HostRanks law = plain();
  law.leaf_efficiency = 0.5;
  ByteMatrix bytes(4);
  bytes.at(0, 2) = 1e6;
  bytes.at(1, 3) = 1e6;
  HostRankEvents events(law, hosts(4, R"("kind": "fat_tree", "nodes_per_switch": 2, "oversubscription": 2)"), 4);
  EXPECT_NEAR(events.exchange_s(bytes), 2e6 / (0.5 * 1e9), 1e-9);
}

TEST(HostRanks, ALayerOverlapsWhatRanksDoAtTheirOwnPace) {
  HostLayer layer;
  layer.dispatch = ByteMatrix(2);
  layer.dispatch.at(0, 1) = 1e6;  // 1 ms
  layer.dispatch.at(1, 0) = 3e6;  // 3 ms
  layer.local_s = {0, 0};
  layer.experts_s = {0.010, 0.004};
  HostRanks law = plain();
  // Ports carry both directions, and a rank goes on when it has sent and received: both after 3 ms. Rank 1 combines
  // after 4 ms, rank 0 after 10 ms, for 3 ms.
  EXPECT_NEAR(HostRankEvents(law, hosts(2), 2).layer_s(layer), 0.003 + 0.010 + 0.003, 1e-9);
  // One CPU for both: rank 1 is done after 8 ms, rank 0 after 14.
  law.cores = 1;
  EXPECT_NEAR(HostRankEvents(law, hosts(2), 2).layer_s(layer), 0.003 + 0.014 + 0.003, 1e-9);
}

TEST(HostRanks, FindsTheLawThatMadeTheProbes) {
  const Cluster cluster = hosts(4);
  std::vector<ExchangeProbe> exchanges;
  for (const double bytes : {4e4, 2e5, 1e6, 4e6, 2e7}) {
    ByteMatrix one(4);
    one.at(0, 3) = bytes;
    exchanges.push_back({one, 2e-4 + 5e-5 + std::max(0.0, bytes - 1e4) / 0.9e9});
    exchanges.push_back({ByteMatrix::uniform(4, bytes), 2e-4 + 3 * 5e-5 + std::max(0.0, 0.75 * bytes - 1e4) / 0.9e9});
  }
  std::vector<WorkProbe> work;
  for (const double rows : {1.0, 10.0, 100.0, 1000.0}) {
    WorkProbe probe;
    probe.calls = 4;
    probe.flops = rows * 1e6;
    probe.weight_bytes = 1e6 * (1 + std::fmod(rows, 7));
    probe.seconds = 4 * 1e-5 + probe.flops / 50e9 + probe.weight_bytes / 10e9;
    work.push_back(probe);
    probe.kind = HostWork::local;
    probe.calls = 1;
    probe.row_bytes = rows * 1e4;
    probe.seconds = 1e-5 + probe.row_bytes / 5e9;
    work.push_back(probe);
  }
  WorkProbe together = work[4];
  together.at_once = 4;
  together.seconds = work[4].seconds * 4 / 1.5;
  work.push_back(together);
  const HostRanks law = fit_host_ranks(cluster, 4, exchanges, work);
  EXPECT_NEAR(law.port_efficiency, 0.9, 0.01);
  EXPECT_NEAR(law.cores, 1.5, 1e-6);
  EXPECT_NEAR(1 / law.experts.flop_s, 50e9, 1e9);
  HostRankEvents events(law, cluster, 4);
  const ByteMatrix asked = ByteMatrix::uniform(4, 6e5);
  const double expected = 2e-4 + 3 * 5e-5 + (0.75 * 6e5 - 1e4) / 0.9e9;
  EXPECT_NEAR(events.exchange_s(asked) / expected, 1, 0.02);
}

TEST(HostRanks, RefusesProbesThatSayTooLittle) {
  const Cluster cluster = hosts(2);
  EXPECT_THROW(fit_host_ranks(cluster, 2, {}, {}), InputError);
  const std::vector<ExchangeProbe> exchanges(3, {ByteMatrix::uniform(2, 1e6), 0.0});
  const std::vector<WorkProbe> work(6, WorkProbe{});
  EXPECT_THROW(fit_host_ranks(cluster, 2, exchanges, work), InputError);
  EXPECT_THROW(HostRankEvents(plain(), cluster, 3), InputError);
}

}  // namespace
}  // namespace moecast
