// MoE layers of expert parallelism as events: hand-worked times, overlap, shadowed experts, slow ranks.
#include "sim/event/moe_layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "models/routing/load.h"
#include "sim/event/engine.h"
#include "sim/event/routing_study.h"

namespace moecast {
namespace {

Topology eight_ranks() {
  return Topology(parse_cluster_text(R"({"schema_version":1,"name":"x","devices_per_node":8,"most_nodes":1,
      "scale_up":{"kind":"switch","bandwidth":{"value":400e9,"unit":"B/s","origin":"datasheet","source":"x"}},
      "scale_out":{"kind":"none"}})",
                                     "x"),
                  8, nullptr);
}

RoutingStudy study_of(double exponent) {
  RoutingStudy study(eight_ranks(), eight_ranks());
  study.policy.top_k = 2;
  study.popularity = expert_popularity({LoadKind::zipf, exponent, {}, 1}, 16);
  study.placements = make_placements(PlacementKind::contiguous, study.popularity, 1, 8, 4, 0, 3);
  study.traffic.deduplication = Deduplication::per_expert;
  study.traffic.dispatch_row_bytes = 8192;
  study.tokens = 8 * 256;
  study.layers = 4;
  study.costs.router_s = 4e-6;
  study.costs.experts_s = [](const RankLoad& load) { return 30e-6 + 1e-7 * load.rows; };
  study.costs.dispatch_start_s = study.costs.combine_start_s = 5e-6;
  study.costs.dispatch_s = [](double imbalance) { return 5e-6 + 50e-6 * imbalance; };
  study.costs.combine_s = [](double imbalance) { return 5e-6 + 90e-6 * imbalance; };
  return study;
}

double mean_step(const RoutingStudy& study) {
  double sum = 0;
  for (const StepSample& sample : run_study(study, 1, 8, 2)) sum += sample.step_s / 8;
  return sum;
}

TEST(RoutingStudy, ReplicasAnswerTheSameOnAnyNumberOfThreads_D3) {
  RoutingStudy study = study_of(1);
  study.placements = make_placements(PlacementKind::balanced, study.popularity, 1, 8, 4, 4, 3);
  ASSERT_GT(study.placements.front().copies(), 16U);
  for (const int chunks : {1, 2}) {
    study.chunks = chunks;
    const std::vector<StepSample> one = run_study(study, 1, 24, 1);
    for (const int threads : {2, 3, 7}) {
      const std::vector<StepSample> many = run_study(study, 1, 24, threads);
      for (std::size_t i = 0; i < one.size(); ++i) {
        EXPECT_EQ(many[i].step_s, one[i].step_s) << threads << " " << i;
        EXPECT_EQ(many[i].port_imbalance, one[i].port_imbalance) << threads << " " << i;
      }
    }
  }
  RoutingSimulator simulator(study);
  const double later = simulator.run(1, 5).step_s;
  static_cast<void>(simulator.run(1, 0));
  EXPECT_EQ(simulator.run(1, 5).step_s, later) << "whatever was asked before";
}

TEST(MoeLayer, TimesOfALayerAddUp) {
  const RoutingStudy study = study_of(0);
  EventGraph graph;
  NetworkPorts ports(graph, study.topology);
  MoeTraffic traffic;
  traffic.dispatch = ByteMatrix::uniform(8, 8e6);
  traffic.loads.assign(8, RankLoad{100, 2, 50});
  traffic.loads[3].rows = 400;
  // The fullest link carries 7e6 B: 17.5 us.
  MoeEvents events(graph, ports, 8, {}, 17.5e-6);
  events.add_layer(study.costs, std::span(&traffic, 1));
  const EventTimes times = simulate(graph);
  EXPECT_FALSE(times.contended);
  EXPECT_NEAR(times.makespan_s, 4e-6 + 55e-6 + 70e-6 + 95e-6, 1e-12);
}

/// Alone: 4 us route, 55 us dispatch, 40 us experts, 95 us combine; the fullest link carries 7 MB in 17.5 us.
double uniform_layer_s(const Topology& topology, MoeEventOptions options, double background = 0) {
  const RoutingStudy study = study_of(0);
  EventGraph graph;
  NetworkPorts ports(graph, topology);
  MoeTraffic traffic;
  traffic.dispatch = ByteMatrix::uniform(8, 8e6);
  traffic.loads.assign(8, RankLoad{100, 2, 50});
  MoeEvents events(graph, ports, 8, std::move(options), 17.5e-6);
  events.add_layer(study.costs, std::span(&traffic, 1));
  ports.leave_to_others(graph, background);
  return simulate(graph).makespan_s;
}

TEST(MoeLayer, ADegradedLinkTakesItsFactorLonger) {
  Topology topology = eight_ranks();
  EXPECT_NEAR(uniform_layer_s(topology, {}), 194e-6, 1e-12);
  topology.scale_link("rank 2 port in", 0.5);
  // Into rank 2 both ways take twice as long: 5 + 100 and 5 + 180 us.
  EXPECT_NEAR(uniform_layer_s(topology, {}), 4e-6 + 105e-6 + 40e-6 + 185e-6, 1e-12);
}

TEST(MoeLayer, ASlowRankHoldsAllUp) {
  MoeEventOptions options;
  options.slowdown = {1, 1, 1, 2, 1, 1, 1, 1};
  EXPECT_NEAR(uniform_layer_s(eight_ranks(), options), 8e-6 + 55e-6 + 80e-6 + 95e-6, 1e-12);
}

TEST(MoeLayer, OthersTrafficTakesItsShareOfTheLinks) {
  // Starts, routing and experts take 4 + 5 + 40 + 5 us; bytes flow for 50 and 90 us where all of a link is theirs.
  for (const FlowModel flows : {FlowModel::port, FlowModel::exact}) {
    MoeEventOptions options;
    options.flows = flows;
    for (const double share : {0.1, 0.5, 0.9}) {
      const double expected = 54e-6 + 140e-6 / (1 - share);
      EXPECT_NEAR(uniform_layer_s(eight_ranks(), options, share), expected, 1e-4 * expected) << share;
    }
  }
}

TEST(MoeLayer, EveryPairByItselfTakesWhatThePortsSay) {
  RoutingStudy ports = study_of(1);
  RoutingStudy pairs = ports;
  pairs.options.flows = FlowModel::exact;
  const StepSample sums = run_study(ports, 1, 1, 1).front();
  const StepSample exact = run_study(pairs, 1, 1, 1).front();
  EXPECT_EQ(sums.contended_layers, 0);
  EXPECT_EQ(exact.contended_layers, 4) << "pairs share links";
  // The bar of the port model.
  EXPECT_NEAR(exact.step_s / sums.step_s, 1, 0.01);
  EXPECT_GE(exact.step_s, sums.step_s * (1 - 1e-6));
}

TEST(MoeLayer, RoundsTakeWhatTheirFullestLinksDo) {
  MoeEventOptions options;
  options.exchange = ExchangeAlgorithm::pairwise;
  options.ranks_per_node = 8;
  options.round_s = 2e-6;
  // Even pairs fill every round alike: as direct, and six more rounds wait for the one before.
  const double pairwise = uniform_layer_s(eight_ranks(), options);
  EXPECT_NEAR(pairwise, 194e-6 + 2 * 6 * 2e-6, 1e-12);
  // Around the ring a port carries 7 + 6 + ... + 1 = 28 blocks instead of 7.
  options.exchange = ExchangeAlgorithm::ring;
  EXPECT_NEAR(uniform_layer_s(eight_ranks(), options), 194e-6 + 3 * (50e-6 + 90e-6) + 2 * 6 * 2e-6, 1e-12);
}

TEST(MoeLayer, GatheringFromAllDoesNotCareForSkew) {
  RoutingStudy even = study_of(0);
  even.costs.experts_s = [](const RankLoad&) { return 30e-6; };
  even.options.exchange = ExchangeAlgorithm::all_gather;
  even.options.ranks_per_node = 8;
  RoutingStudy skewed = study_of(1.5);
  skewed.costs.experts_s = even.costs.experts_s;
  skewed.options = even.options;
  EXPECT_NEAR(mean_step(skewed) / mean_step(even), 1, 1e-9);
  skewed.options.exchange = ExchangeAlgorithm::pairwise;
  EXPECT_GT(mean_step(skewed), 1.2 * mean_step(even));
}

TEST(MoeLayer, TheSameForAnyNumberOfThreads) {
  const RoutingStudy study = study_of(1);
  const auto one = run_study(study, 7, 9, 1);
  const auto four = run_study(study, 7, 9, 4);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_EQ(one[i].step_s, four[i].step_s);
  EXPECT_NE(one[0].step_s, one[1].step_s);
}

TEST(MoeLayer, SkewSlowsAndBalancingMends) {
  const double even = mean_step(study_of(0));
  RoutingStudy skewed = study_of(1.2);
  const double slow = mean_step(skewed);
  EXPECT_GT(slow, 1.2 * even);
  skewed.placements = make_placements(PlacementKind::balanced, skewed.popularity, 1, 8, 4, 4, 3);
  EXPECT_LT(mean_step(skewed), slow);
}

TEST(MoeLayer, PipeliningLiesBetweenTheLongerPartAndTheSum_C23_D9) {
  RoutingStudy study = study_of(0);
  study.costs.experts_s = [](const RankLoad& load) { return 3e-7 * load.rows; };
  study.costs.dispatch_start_s = study.costs.combine_start_s = 0;
  study.costs.dispatch_s = [](double imbalance) { return 80e-6 * imbalance; };
  study.costs.combine_s = study.costs.dispatch_s;
  StepSample serial = run_study(study, 1, 1, 1).front();
  for (const int chunks : {2, 4, 8}) {
    study.chunks = chunks;
    const StepSample piped = run_study(study, 1, 1, 1).front();
    EXPECT_LT(piped.step_s, serial.step_s) << chunks;
    EXPECT_GE(piped.step_s, std::max(serial.kernels_s, serial.dispatch_s + serial.combine_s)) << chunks;
  }
}

TEST(MoeLayer, ShadowingAHotExpertShortensASkewedStep_C23_D9) {
  RoutingStudy study = study_of(1.5);
  const double before = mean_step(study);
  study.shadowed_experts = 1;
  study.expert_bytes = 1e5;
  EXPECT_LT(mean_step(study), before);
  study.expert_bytes = 1e9;  // weights that take longer than they save
  EXPECT_GT(mean_step(study), before);
}

TEST(MoeLayer, ASlowRankADegradedLinkAndOthersTrafficSlow) {
  const RoutingStudy plain = study_of(0.5);
  const double before = mean_step(plain);
  RoutingStudy slow = plain;
  slow.options.slowdown = {1, 1, 1, 2, 1, 1, 1, 1};
  EXPECT_GT(mean_step(slow), before);
  RoutingStudy degraded = plain;
  degraded.topology.scale_link("rank 2 port in", 0.5);
  EXPECT_GT(mean_step(degraded), before);
}

TEST(MoeLayer, ADegradedLinkIsNoLongerMessage) {
  // A law by which twice the bytes take less than twice as long, as links are used better.
  RoutingStudy study = study_of(0);
  study.costs.dispatch_s = study.costs.combine_s = [](double bytes) { return 5e-6 + 80e-6 * std::sqrt(bytes); };
  const double usual = mean_step(study);
  RoutingStudy shared = study;
  shared.background_share = 0.5;
  RoutingStudy degraded = study;
  for (int rank = 0; rank < 8; ++rank) {
    for (const char* way : {" port in", " port out"})
      degraded.topology.scale_link("rank " + std::to_string(rank) + way, 0.5);
  }
  RoutingStudy one = study;
  one.topology.scale_link("rank 3 port out", 0.5);
  const double flows = 2 * 80e-6 * 4;  // dispatch and combine of four layers
  EXPECT_NEAR(mean_step(degraded), usual + flows, 0.1 * flows) << "each takes twice as long";
  EXPECT_NEAR(mean_step(degraded) / mean_step(shared), 1, 0.01);
  EXPECT_NEAR(mean_step(one) / mean_step(degraded), 1, 0.05) << "all wait for it";
}

}  // namespace
}  // namespace moecast
